"""Balanced accuracy of each method on the demo's long-tailed digits, with the same labels and steps.

    python -m benchmarks.demo_gain [--seeds 3] [arguments of tailmatch fit, such as --trainer.max_epochs 5]

Each seed draws another split, other weights, other views. Tested are the averaged weights of the last step,
so that nothing is selected by validation images.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from cli import TailmatchCLI, quiet_known_noise, start_anew_on_class_change

DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"
SHARED = ("network", "optimizer", "lr_scheduler", "ema_decay")
"""Arguments of the demo's method that every method takes."""

METHODS = {
    "Supervised": ("lightning_modules.Supervised", False),
    "FixMatch": ("lightning_modules.FixMatch", False),
    "FixMatch + DARP": ("lightning_modules.FixMatch", True),
}
"""Name to class, and whether the demo's callbacks (DARP) go with it."""


class Quiet(TailmatchCLI):
    """The command line without its reports."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """A silent trainer."""
        return super().instantiate_trainer(
            enable_progress_bar=False, enable_model_summary=False, logger=False, **kwargs
        )


def balanced_accuracy(class_path: str, with_callbacks: bool, seed: int, arguments: list[str]) -> float:
    """Train one method on the demo's data and test its last weights."""
    config = yaml.safe_load(DEMO.read_text())
    if class_path != config["model"]["class_path"]:
        shared = {name: value for name, value in config["model"]["init_args"].items() if name in SHARED}
        config["model"] = {"class_path": class_path, "init_args": shared}
    if not with_callbacks:
        del config["trainer"]["callbacks+"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump({**config, "run_dir": f"{folder}/run"}))
        cli = Quiet(["fit", "--config", str(file), f"--seed_everything={seed}", *arguments])
        [result] = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    return float(result["test/balanced_accuracy"])


def main() -> None:
    """Run all methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    args, arguments = parser.parse_known_args()
    quiet_known_noise()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sys.argv = sys.argv[:1]
    start_anew_on_class_change()
    table = Table(title="test balanced accuracy on the demo's digits, %")
    for column in ("method", *[f"seed {seed}" for seed in range(args.seeds)], "mean"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, method in METHODS.items():
        scores = [100 * balanced_accuracy(*method, seed, arguments) for seed in range(args.seeds)]
        table.add_row(name, *[f"{score:.1f}" for score in scores], f"{statistics.mean(scores):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
