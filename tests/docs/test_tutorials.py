"""The tutorials run as a reader runs them, block by block, on small made-up data and with fewer steps."""

import csv
import pickle
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import datasets

from tailmatch.command_line.studies import running_cell
from tests.documented_commands import ROOT, TUTORIALS, Command, pictures_of, shortened, steps_of
from tests.typed import tailmatch

OWN_IMAGES, COMPARISON, PYTHON = (
    next(page for page in TUTORIALS if page.stem == name) for name in ("own-images", "comparison", "python")
)
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
SHORT = [*QUIET, "--trainer.max_epochs=1", "--data.steps_per_epoch=2", "--model.network.depth=8"]
PRODUCTS = {"Topwear": 100, "Shoes": 60, "Scarves": 20, "Saree": 1}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The folder in which a reader works."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    plt.close("all")


def run(page: Path, options: dict[str, list[str]], **settings: int) -> dict[str, Any]:
    """Run what a page lets its reader run; return the names that its Python defines.

    Args:
        page: The tutorial.
        options: What to append to the commands `fit`, `test`, ... so that they are quick.
        **settings: Other numbers for arguments in Python.
    """
    steps = steps_of(page)
    code = shortened("\0".join(step for step in steps if isinstance(step, str)), **settings).split("\0")
    names: dict[str, Any] = {}
    for step in steps:
        if isinstance(step, Command):
            tailmatch(*step.words, *options[step.words[0]])
        else:
            exec(compile(code.pop(0), str(page), "exec"), names)
    return names


def write_products(folder: Path) -> None:
    """Write a catalog of few kinds of products, each in its own color."""
    random = np.random.default_rng(0)
    (folder / "products" / "images").mkdir(parents=True)
    rows = [["image", "subCategory"]]
    for kind, (name, count) in enumerate(PRODUCTS.items()):
        for number in range(count):
            pixels = random.integers(0, 100, (16, 16, 3)) + 50 * kind
            rows.append([f"images/{kind}{number:02}.jpg", name])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "products" / rows[-1][0])
    with (folder / "products" / "products.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_own_images(folder: Path) -> None:
    write_products(folder)
    torch.save(timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict(), "lite0.pth")
    init = ["--weights", "lite0.pth", "--image_size", "32", "--minutes", "0.05"]
    fit = [*QUIET, "--trainer.max_epochs=1", "--data.steps_per_epoch=2", "--data.labeled_batch_size=4"]
    names = run(OWN_IMAGES, {"init": init, "fit": fit, "test": QUIET, "report": [], "predict": QUIET})
    assert names["sizes"] == Counter(path.parent.name for path in Path("my-images/train").glob("*/*"))
    assert sum(names["sizes"].values()) == 18 + 100
    assert len(names["predictions"]) == len(list(Path("my-images/unlabeled").iterdir())) == 26
    assert all((folder / name).exists() for name in pictures_of(OWN_IMAGES))


def write_cifar10(folder: Path) -> None:
    """Write 40 training and 10 test images of each class in the format of CIFAR-10."""
    random = np.random.default_rng(0)
    (folder / datasets.CIFAR10.base_folder).mkdir(parents=True)
    for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list:
        count = 80 if name.startswith("data") else 100
        record = {
            "data": random.integers(0, 256, (count, 3072), dtype=np.uint8),
            "labels": [*range(10)] * (count // 10),
        }
        (folder / datasets.CIFAR10.base_folder / name).write_bytes(pickle.dumps(record))
    meta = {"label_names": [str(k) for k in range(10)]}
    (folder / datasets.CIFAR10.base_folder / "batches.meta").write_bytes(pickle.dumps(meta))


UNCHECKED = """
from torchvision import datasets
datasets.CIFAR10._check_integrity = lambda self: True
datasets.cifar.check_integrity = lambda *args: True
from tailmatch.cli import main
main()
"""
"""The command line, for which what is made up here is CIFAR-10."""


def test_comparison(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_cell, "PROGRAM", [sys.executable, "-c", UNCHECKED])
    write_cifar10(folder / "data")
    counts = ["labeled_max=8", "labeled_gamma=4", "unlabeled_max=16", "unlabeled_gamma=4"]
    fit = [*SHORT, "--data.labeled_batch_size=4", "--data.val_holdout=4", *[f"--data.class_counts.{c}" for c in counts]]
    sweep = ["--where", "method=FixMatch, logits adjusted", "seed=0", *fit]
    names = run(COMPARISON, {"configs": [], "sweep": sweep, "compare": []})
    assert {row["method"]: len(names["classes"]) for row in names["rows"]} == dict.fromkeys(
        ("FixMatch", "FixMatch, logits adjusted"), 10
    )
    assert all((folder / name).exists() for name in [*pictures_of(COMPARISON), "comparison.html", "comparison.tex"])


def test_the_study_of_the_comparison_is_the_file() -> None:
    shown = COMPARISON.read_text().partition("```yaml\n")[2].partition("```")[0]
    assert (ROOT / "configs" / "studies" / "tutorial.yaml").read_text().endswith(f"\n{shown}")


def test_python(folder: Path) -> None:
    names = run(PYTHON, {}, steps_per_epoch=2, max_epochs=1, warmup_epochs=0)
    assert names["counts"].labeled_max == 12 and len(names["found"].names) == 3
    assert all((folder / name).exists() for name in pictures_of(PYTHON))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_the_pictures_are_small_and_made_by_the_page(page: Path) -> None:
    code = "".join(step for step in steps_of(page) if isinstance(step, str))
    assert pictures_of(page) and sorted(pictures_of(page)) == sorted(re.findall(r'savefig\("([^"]+)"', code))
    assert all(0 < (page.parent / name).stat().st_size < 100_000 for name in pictures_of(page))
