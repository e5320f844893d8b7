"""Compare the balanced accuracy of all methods on the demo's long-tailed digits, with the same labels and steps.

    python -m benchmarks.demo_gain [--seeds 3] [--rows FixMatch "FixMatch + DARP"] [--unlabeled uniform reversed]
        [arguments of tailmatch fit]

Each seed draws another split, other weights and other views. The averaged weights of the last step are tested, so that
nothing is selected by validation images. The unlabeled images have all classes alike, as in the demo, or the reverse of
the labeled long tail (100 images of the rarest labeled class, 17 of the most frequent). DARP and the alignment get
these counts as their target; the other remedies and methods do not know them. ReMixMatch has its own alignment, to the
labeled classes unless it gets another target. What counts steps is scaled to the 1,500 steps of the demo.
"""

import argparse
import contextlib
import io
import logging
import statistics
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.datamodules.splitting.long_tail import darp_counts
from tailmatch.lightning_modules.training.quiet import quiet_known_noise

DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"
SHARED = ("network", "ema_decay")
"""Arguments of the demo's method that methods without strong views have, too."""

MIXING: dict[str, Any] = {"rampup_steps": None, "interleaved": False}
"""Arguments of MixMatch and its descendants: a ramp-up over the demo's 1,500 steps instead of the published 16,384, and
mixed images in one pass, since nine passes of 16 tiny images cost mostly calls."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        method: Name of the method's class.
        arguments: Arguments of the method besides the demo's.
        remedy: Name of a callback's class, or None.
        remedy_arguments: Arguments of the callback.
        targeted: Whether the callback gets the counts of the unlabeled classes.
        shared: Arguments of the demo's method that it takes.
    """

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    remedy: str | None = None
    remedy_arguments: dict[str, Any] = field(default_factory=dict)
    targeted: bool = True
    shared: tuple[str, ...] = ("network", "ema_decay", "strong")


def with_targets(name: str, row: Row) -> dict[str, Row]:
    """Give the rows of a method: alone, with DARP and with distribution alignment."""
    darp = replace(row, remedy="DARP", remedy_arguments={"warmup_epochs": 3})
    return {name: row, f"{name} + DARP": darp, f"{name} + alignment": replace(row, remedy="DistributionAlignment")}


def without_target(method: str, arguments: dict[str, Any], remedy: str | None = None, **remedy_arguments: Any) -> Row:
    """Give a row that knows no counts of the unlabeled classes."""
    return Row(method, arguments, remedy, remedy_arguments, targeted=False)


ROWS: dict[str, Row] = {
    "Supervised": Row("Supervised", shared=SHARED),
    "Supervised, logit-adjusted loss": Row("Supervised", {"loss": {"class_path": "LogitAdjusted"}}, shared=SHARED),
    **with_targets("FixMatch", Row("FixMatch")),
    **with_targets("MixMatch", Row("MixMatch", MIXING, shared=SHARED)),
    **with_targets("SimMixMatch", Row("SimMixMatch", MIXING, shared=SHARED)),
    **with_targets("ReMixMatch", Row("ReMixMatch", {**MIXING, "strong_views": 2})),
    "FixMatch + DebiasPL": without_target("FixMatch", {}, "DebiasPL", momentum=0.99),
    "FixMatch + CDMAD": without_target(
        "FixMatch", {"soft_targets": True, "threshold": 0.0, "strong_views": 2}, "CDMAD", warmup_epochs=3, color="black"
    ),
    "ADELLO": without_target("ADELLO", {}, "FlexDA", momentum=0.99),
    "SimPro": without_target("SimPro", {"every": 17}),
    "SimPro, tau 1": without_target("SimPro", {"every": 17, "tau": 1.0}),
    "SimPro, tau 1, 10 updates": without_target("SimPro", {"every": 150, "tau": 1.0}),
    "FixMatchABC": without_target("FixMatchABC", {"strong_views": 2}),
    "CPE": without_target("CPE", {}),
    "ACR": without_target("ACR", {"warmup_steps": 150, "every": 50, "momentum": 0.95}),
    "BOAT": without_target("BOAT", {"momentum": 0.98}),
    "SC-SSL": without_target("SCSSL", {"estimation_epochs": 3}),
}

UNLABELED = {"uniform": {}, "reversed": {"unlabeled_gamma": 6, "unlabeled_reverse": True}}
"""Unlabeled set to arguments of `DARPCounts` besides those of the demo."""


def balanced_accuracy(row: Row, unlabeled: str, seed: int, arguments: list[str]) -> float:
    """Train one row on the demo's data and test its last weights, in percent."""
    config = yaml.safe_load(DEMO.read_text())
    shared = {key: value for key, value in config["model"]["init_args"].items() if key in row.shared}
    config["model"] = {"class_path": row.method, "init_args": {**shared, **row.arguments}}
    counts = config["data"]["init_args"]["class_counts"]["init_args"]
    counts.update(UNLABELED[unlabeled])
    del config["trainer"]["callbacks+"]
    quiet = ("logger", "enable_progress_bar", "enable_checkpointing")
    config["trainer"] |= dict.fromkeys(quiet, False)
    if row.remedy is not None:
        target = darp_counts(counts["unlabeled_max"], counts["unlabeled_gamma"], 10)
        own = {"target": target[::-1] if counts.get("unlabeled_reverse") else target} if row.targeted else {}
        config["trainer"]["callbacks"] = [{"class_path": row.remedy, "init_args": {**own, **row.remedy_arguments}}]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump({**config, "run_dir": f"{folder}/run"}))
        with contextlib.redirect_stdout(io.StringIO()):
            cli = TailmatchCLI(["fit", "--config", str(file), f"--seed_everything={seed}", *arguments])
            [result] = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    return 100 * float(result["test/balanced_accuracy"])


def main() -> None:
    """Run all methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--unlabeled", nargs="+", choices=UNLABELED, default=list(UNLABELED))
    args, arguments = parser.parse_known_args()
    quiet_known_noise()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sys.argv = sys.argv[:1]
    print(f"| test balanced accuracy, % | {' | '.join(args.unlabeled)} |\n|---|{'---:|' * len(args.unlabeled)}")
    for name in args.rows:
        cells = [cell(ROWS[name], unlabeled, args.seeds, arguments) for unlabeled in args.unlabeled]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def cell(row: Row, unlabeled: str, seeds: int, arguments: list[str]) -> str:
    """Train a row with each seed; give the mean and the standard deviation."""
    scores = [balanced_accuracy(row, unlabeled, seed, arguments) for seed in range(seeds)]
    spread = f" ± {statistics.stdev(scores):.1f}" if seeds > 1 else ""
    return f"{statistics.mean(scores):.1f}{spread}"


if __name__ == "__main__":
    main()
