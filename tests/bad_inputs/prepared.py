"""The folder that every row begins with: images, tables, a trained run, and files made from it, all tiny and right."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.bad_inputs.engine import row, run

NETWORK = "--model.network CifarResNet --model.network.depth 8"
FIT = "fit --config small.yaml --run_dir new"
RESUME = "fit --run_dir runs/good --ckpt_path last"
TEST = "test --run_dir runs/good --ckpt_path best"
PREDICT = (
    "predict --ckpt_path runs/good/checkpoints/best.ckpt --data UnlabeledImages --data.root photos --output out.csv"
)
LABEL = "predict --run_dir runs/good --ckpt_path best --output new.npz"
EXPORT = "export runs/good/checkpoints/best.ckpt out.pt2"
TABLE = "fit --config table.yaml --run_dir new"
LABELS = f"{FIT} --model SelfTraining {NETWORK} --data.pseudo_labels pseudo_labels.npz"

BEST = "runs/good/checkpoints/best.ckpt"
LAST = "runs/good/checkpoints/last.ckpt"

CLASSES = ["cat", "dog", "owl"]
SPLITS = {"train": 6, "val": 2, "test": 2}
"""The number of images of each class in each split."""

SETTINGS = """
model:
  class_path: tailmatch.lightning_modules.FixMatch
  init_args: {network: {class_path: tailmatch.lightning_modules.networks.CifarResNet, init_args: {depth: 8}}}
trainer:
  max_epochs: 1
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  log_every_n_steps: 1
data:
"""
BATCHES = "    image_size: 8\n    labeled_batch_size: 4\n    unlabeled_ratio: 1\n    steps_per_epoch: 1\n"
FOLDER = f"""
  class_path: tailmatch.datamodules.ImageFolder
  init_args:
    root: images
    class_counts: {{class_path: tailmatch.datamodules.LabeledFraction, init_args: {{fraction: 1.0}}}}
{BATCHES}"""
LIST = f"""
  class_path: tailmatch.datamodules.ImageTable
  init_args:
    table: table.csv
{BATCHES}"""


def prepare(folder: Path, beside: Path) -> None:
    """Make the folder; what the commands print goes to `beside`."""
    write_images(folder)
    (folder / "small.yaml").write_text(SETTINGS.strip() + FOLDER)
    (folder / "table.yaml").write_text(SETTINGS.strip() + LIST)
    (folder / "prior.json").write_text(json.dumps({"counts": [3.0, 2.0, 1.0], "class_names": CLASSES}))
    for name, command in (("fit", FIT.replace("new", "runs/good")), ("predict", LABEL.replace("new", "pseudo_labels"))):
        outcome = run(row(name, command), folder, beside / name)
        if outcome.code != 0:
            raise RuntimeError(f"{command}\n{outcome.out}\n{outcome.err}")


def write_images(folder: Path) -> None:
    """Write images of three classes, unlabeled ones, and a table of the labeled ones."""
    random = np.random.default_rng(0)

    def write(name: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(path)

    rows = ["image,target,split,color"]
    for split, count in SPLITS.items():
        for name in CLASSES:
            for number in range(count):
                write(f"images/{split}/{name}/{number}.png")
                rows.append(f"images/{split}/{name}/{number}.png,{name},{split},red")
    for number in range(6):
        write(f"images/unlabeled/{number}.png")
        rows.append(f"images/unlabeled/{number}.png,,unlabeled,blue")
    for number in range(3):
        write(f"photos/{number}.png")
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
