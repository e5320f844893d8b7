"""Time evaluation and prediction as users run them, against the bare forward passes.

    python -m benchmarks.throughput [--rounds 3] [--images 512] [--threads 2]

Two networks: WRN-28-2 on images of 32 pixels in memory (the embedded digits), and EfficientNet-B0 on JPEG files of 160
pixels that are resized to 96, from the cache and decoded each time. `tailmatch validate`, `test` and `predict` (to a
table) are timed from the start of their loop to its last batch, and from there until figures, reports and files are
written. The start of the process is another benchmark's (`benchmarks.start`). After each batch, the same network
passes the same batch once more, as float tensor that lies there: the time of these bare passes is no part of the
loop's. The table has medians over rounds.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from benchmarks.command import run_watched
from benchmarks.image_files import write_images
from tailmatch.lightning_modules.networks.inputs import to_float

BATCH = 128
FEW = ["--data.labeled_batch_size=4", "--data.unlabeled_ratio=1", "--data.steps_per_epoch=1", "--trainer.max_epochs=1"]
COMMANDS = {
    "validate": ["validate"],
    "test, with its report": ["test"],
    "predict": ["predict", "--data.predict_set=test", "--overwrite=true"],
}


HEADER = """\
| network and images | command | images/s | bare | of the bare passes | seconds after the last batch |
|---|---|---:|---:|---:|---:|"""


class Loop(Callback):
    """Times the loop of an evaluation or a prediction, and a bare pass after each of its batches.

    Attributes:
        taken: The seconds of the loop, of what follows its last batch, and of the bare passes.
        images: The number of images.
    """

    def __init__(self) -> None:
        self.taken, self.images, self._since = [0.0, 0.0, 0.0], 0, 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warm up by one pass; then note the start."""
        self.taken, self.images = [0.0, 0.0, 0.0], 0
        pl_module(torch.rand(BATCH, 3, *trainer.datamodule.height_and_width))  # type: ignore[attr-defined]
        self._since = time.perf_counter()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Add the time of the batch, and that of a bare pass."""
        self.taken[0] += time.perf_counter() - self._since
        images = to_float(batch["image"])
        begun = time.perf_counter()
        pl_module.network(images)
        self._since = time.perf_counter()
        self.taken[2] += self._since - begun
        self.images += len(images)

    def on_validation_end(self, *args: Any) -> None:
        """Note what follows the last batch."""
        self.taken[1] = time.perf_counter() - self._since

    on_test_start = on_predict_start = on_validation_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_end = on_predict_end = on_validation_end


def trainings(folder: Path, images: int) -> dict[str, list[str]]:
    """Name what is measured, with the words of a training that makes the checkpoint."""
    digits = [f"--data.test_holdout={images // 10}", f"--data.val_holdout={images // 10 // 2}", "--data.image_size=32"]
    files = write_images(folder / "images", images)
    photos = ["--data=ImageFolder", f"--data.root={files}", f"--data.cache_dir={folder}/cache", "--data.image_size=96"]
    photos += ["--data.val_holdout=64", "--model.network=EfficientNet", "--model.network.pretrained=false"]
    return {
        "WRN-28-2, 32 px": ["--data=Digits", *digits],
        "EfficientNet-B0, 96 px": photos,
        "EfficientNet-B0, 96 px, decoded": [*photos, "--data.cache_budget_gb=0"],
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512, help="evaluated images of a run (default: 512)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    place = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", f"--data.eval_batch_size={BATCH}"]
    print(HEADER)
    with tempfile.TemporaryDirectory() as temporary:
        for name, training in trainings(Path(temporary), options.images).items():
            run = f"--run_dir={temporary}/{name}"
            run_watched(Callback(), "fit", "--model=Supervised", *training, *FEW, *place, run)
            for command, words in COMMANDS.items():
                if command == "predict" or "decoded" not in name:
                    measured = measure([*words, run, "--ckpt_path=last"], options.rounds)
                    print(f"| {name} | {command} | {measured} |", flush=True)


def measure(words: list[str], rounds: int) -> str:
    """Measure a command; return its images/s, those of the bare passes, the ratio of the times, and what follows."""
    loop, taken = Loop(), []
    for _ in range(rounds):
        run_watched(loop, *words)
        taken.append(loop.taken)
    ours, after, passes = (statistics.median(column) for column in zip(*taken, strict=True))
    ratio = statistics.median(a / b for a, _, b in taken)
    return f"{loop.images / ours:,.0f} | {loop.images / passes:,.0f} | {ratio:.2f} | {after:.2f}"


if __name__ == "__main__":
    main()
