"""Folders of runs that nobody has trained, with the files that a comparison reads."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CLASSES = ("cat", "dog", "owl", "eel", "ant", "yak")
"""The classes, the one with the most labels first."""

COUNTS = [60, 30, 20, 10, 5, 2]


def metrics(accuracy: float) -> dict[str, float]:
    """Made-up metrics."""
    groups = {"many": accuracy + 0.1, "medium": accuracy, "few": accuracy - 0.1}
    return {"balanced_accuracy": accuracy, "top1": accuracy + 0.05, "macro_f1": accuracy - 0.02, "loss": 1.5} | groups


def config(method: str = "FixMatch", seed: int = 0, **settings: Any) -> dict[str, Any]:
    """A configuration; `settings` are arguments of the method, or callbacks and data."""
    network = {"class_path": "tailmatch.lightning_modules.networks.CifarResNet", "init_args": {"depth": 8}}
    data = {"root": "data", "seed": None, "labeled_batch_size": 16, "validate_on_test": False, "test_holdout": 0}
    callbacks = settings.pop("callbacks", [])
    data |= settings.pop("data", {})
    return {
        "seed_everything": seed,
        "trainer": {"max_epochs": 10, "precision": None, "devices": 1, "callbacks": callbacks},
        "model": {
            "class_path": f"tailmatch.lightning_modules.{method}",
            "init_args": {"network": network, "ema_decay": 0.99, **settings},
        },
        "data": {"class_path": "tailmatch.datamodules.Digits", "init_args": data},
        "run_dir": f"somewhere/{method}-{seed}",
        "checkpoint": {"monitors": ["val/balanced_accuracy"], "mode": "max"},
    }


def facts(seed: int = 0, names: Sequence[str] = CLASSES, **changes: Any) -> dict[str, Any]:
    """The content of a `run.json`."""
    from tailmatch.datamodules.class_names import names_digest

    return {
        "versions": {"tailmatch": "0.2.0"},
        "git": {"revision": "0123456789abcdef", "changed": False},
        "device": "a processor, 1 threads",
        "split_seed": seed,
        "classes": {"number": len(names), "digest": names_digest(names)},
        "class_counts": COUNTS[: len(names)],
        "images": {"test": 1200, "validation": 60},
        "digests": {"pool": "p", "split": f"split{seed}", "validation": f"val{seed}", "test": "test"},
        "drawn": {"validation": True, "test": False},
        "finished": True,
        "steps": 100,
        "steps_per_second": 12.5,
    } | changes


def make_run(
    folder: Path,
    settings: dict[str, Any],
    accuracy: float = 0.7,
    names: Sequence[str] = CLASSES,
    checkpoint: str | None = "best",
    curve: int = 5,
    **changes: Any,
) -> Path:
    """Write the folder of a run; `changes` are to its `run.json`, and `checkpoint=None` leaves out its test."""
    folder.mkdir(parents=True)
    seed = settings["seed_everything"]
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    write(folder / "run.json", facts(seed, names, **changes))
    if checkpoint is not None:
        recall = {name: max(0.0, accuracy - 0.05 * rank) for rank, name in enumerate(names)}
        path = str(folder / "checkpoints" / f"{checkpoint}.ckpt")
        write(
            folder / "test_metrics.json",
            {"checkpoint": path, "step": 100, "metrics": metrics(accuracy), "recall": recall},
        )
    rows = ["step,epoch,train/loss,val/balanced_accuracy,val/few"]
    for epoch in range(1, curve + 1):
        reached = accuracy * (1 - math.exp(-epoch))
        rows.append(f"{20 * epoch},{epoch},{1 / epoch},{reached},{reached / 2}")
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def make_cell(out: Path, levels: dict[str, str], seed: int, accuracy: float, **changes: Any) -> Path:
    """Write a cell of a sweep."""
    name = "-".join([*levels.values(), str(seed)]).replace("/", "_").replace(" ", "_")
    data = {"unlabeled_reverse": levels.get("unlabeled") == "reversed"}
    split = {"digests": facts(seed)["digests"] | {"split": f"{levels.get('unlabeled')}{seed}"}}
    folder = make_run(out / name, config(seed=seed, data=data), accuracy, **split | changes)
    cell = {"study": "A study", "levels": levels, "seed": seed, "done": ["fit", "test"], "failed": None, "shown": True}
    write(folder / "cell.json", cell)
    return folder


def write(file: Path, content: Any) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(content), encoding="utf-8")


def change(file: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    write(file, json.loads(file.read_text(encoding="utf-8")) | changes)
