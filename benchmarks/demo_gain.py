"""Compare the balanced accuracy of all methods on the demo's long-tailed digits, with the same labels and steps.

    python -m benchmarks.demo_gain [--seeds 3] [--methods FixMatch MixMatch] [arguments of tailmatch fit]

Each seed draws another split, other weights and other views. The averaged weights of the last step are tested, so that
nothing is selected by validation images. Remedies get the demo's target, the known uniform prior. ReMixMatch has its
own distribution alignment, to the labeled classes unless it gets another target.
"""

import argparse
import itertools
import logging
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.lightning_modules.training.quiet import quiet_known_noise

DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"
SHARED = ("network", "ema_decay")
"""Arguments of the demo's method that every method has."""

MIXING: dict[str, Any] = {"rampup_steps": None, "interleaved": False}
"""Arguments of MixMatch and its descendants: a ramp-up over the demo's 1,500 steps instead of the published 16,384, and
mixed images in one pass, since nine passes of 16 tiny images cost mostly calls."""

METHODS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "Supervised": ("Supervised", {}, ()),
    "FixMatch": ("FixMatch", {}, ("strong",)),
    "MixMatch": ("MixMatch", MIXING, ()),
    "SimMixMatch": ("SimMixMatch", MIXING, ()),
    "ReMixMatch": ("ReMixMatch", {**MIXING, "strong_views": 2}, ("strong",)),
}
"""Name to class, its arguments, and which of the demo's arguments it has in addition to `SHARED`."""

REMEDIES = {
    "": None,
    " + DARP": "DARP",
    " + alignment": "DistributionAlignment",
}
"""Suffix to class; each gets the demo's target."""


class Quiet(TailmatchCLI):
    """The command line without its reports."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Create a silent trainer."""
        return super().instantiate_trainer(
            enable_progress_bar=False, enable_model_summary=False, logger=False, **kwargs
        )


def balanced_accuracy(method: str, remedy: str | None, seed: int, arguments: list[str]) -> float:
    """Train one method on the demo's data and test its last weights."""
    config = yaml.safe_load(DEMO.read_text())
    name, own, taken = METHODS[method]
    shared = {key: value for key, value in config["model"]["init_args"].items() if key in (*SHARED, *taken)}
    config["model"] = {"class_path": f"tailmatch.lightning_modules.{name}", "init_args": {**shared, **own}}
    darp = config["trainer"].pop("callbacks+")[-1]
    if remedy == darp["class_path"]:
        config["trainer"]["callbacks"] = [darp]
    elif remedy is not None:
        target = {"target": darp["init_args"]["target"]}
        config["trainer"]["callbacks"] = [{"class_path": remedy, "init_args": target}]
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
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    args, arguments = parser.parse_known_args()
    quiet_known_noise()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sys.argv = sys.argv[:1]
    table = Table(title="test balanced accuracy on the demo's digits, %")
    for column in ("method", *[f"seed {seed}" for seed in range(args.seeds)], "mean"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, (suffix, remedy) in itertools.product(args.methods, REMEDIES.items()):
        if method == "Supervised" and remedy is not None:
            continue
        scores = [100 * balanced_accuracy(method, remedy, seed, arguments) for seed in range(args.seeds)]
        table.add_row(method + suffix, *[f"{score:.1f}" for score in scores], f"{statistics.mean(scores):.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
