"""Compare methods on long-tailed Fashion-MNIST, with unlabeled images that have the same long tail or its reverse.

    python -m benchmarks.long_tail_table --root data [--runs runs/long_tail_table] [--methods FixMatch SimPro]
        [--unlabeled consistent reversed] [--labeled 150] [--seeds 2] [--workers 1] [--show]

`--root` holds `FashionMNIST/raw` with the four published files. Each run is a `tailmatch fit` with a run folder of its
own below `--runs`: what is done already is skipped, and a run that was stopped continues. `--show` trains nothing and
prints the table of what is done, in percent: the mean over the seeds, and the standard deviation of balanced accuracy.

The setting is small enough for one CPU core, five minutes a run: N1 = 150 and M1 = 600 images of the first class, gamma
100 for both sets, CifarResNet-8 on 28 x 28 pixels, batches of 32 labeled and 64 unlabeled images, 1,800 steps of SGD
with a constant learning rate of 0.05, weights averaged with decay 0.99. The 10,000 test images are evaluated after
every 180 steps; the table shows the mean over the last 5 evaluations, so that nothing is selected by them.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.runs import folder_of, in_parallel, over_seeds, train
from tailmatch.datamodules.splitting.long_tail import darp_counts

LABELED, UNLABELED, GAMMA = 150, 600, 100
EPOCHS, STEPS_PER_EPOCH, LAST = 10, 180, 5
DONE = "last_evaluations.json"
UNLABELED_SETS = ("consistent", "reversed")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        method: Name of the method's class.
        arguments: Arguments of the method besides network and averaging.
        remedy: Name of a callback's class, or None.
        target: Class totals that the remedy gets: `true` for those of the unlabeled set, `labeled`, or None.
        remedy_arguments: Other arguments of the callback.
    """

    method: str
    arguments: dict[str, Any] = field(default_factory=dict)
    remedy: str | None = None
    target: str | None = None
    remedy_arguments: dict[str, Any] = field(default_factory=dict)


ROWS: dict[str, Row] = {
    "Supervised": Row("Supervised"),
    "Supervised, logit-adjusted loss": Row("Supervised", {"loss": {"class_path": "LogitAdjusted"}}),
    "FixMatch": Row("FixMatch"),
    "FixMatch + DARP, true prior": Row("FixMatch", remedy="DARP", target="true", remedy_arguments={"warmup_epochs": 2}),
    "FixMatch + DARP, labeled prior": Row(
        "FixMatch", remedy="DARP", target="labeled", remedy_arguments={"warmup_epochs": 2}
    ),
    "FixMatch + alignment, true prior": Row("FixMatch", remedy="DistributionAlignment", target="true"),
    "FixMatch + DebiasPL": Row("FixMatch", remedy="DebiasPL", remedy_arguments={"momentum": 0.99}),
    "FixMatch + UDAL": Row("FixMatch", remedy="FlexDA", remedy_arguments={"target": "labeled"}),
    "FixMatch + CDMAD": Row(
        "FixMatch",
        {"soft_targets": True, "threshold": 0.0, "strong_views": 2},
        remedy="CDMAD",
        remedy_arguments={"warmup_epochs": 2, "color": "mean"},
    ),
    "ADELLO": Row("ADELLO", remedy="FlexDA", remedy_arguments={"momentum": 0.99}),
    "SimPro": Row("SimPro", {"every": 21}),
    "SimPro, tau 1": Row("SimPro", {"every": 21, "tau": 1.0}),
    "SimPro, tau 1, 10 updates": Row("SimPro", {"every": 180, "tau": 1.0}),
    "SC-SSL": Row("SCSSL", {"estimation_epochs": 2}),
    "SC-SSL, tau 1 and 2": Row("SCSSL", {"estimation_epochs": 2, "tau_output": 1.0, "tau_expansive": 2.0}),
    "CPE": Row("CPE"),
    "ACR": Row("ACR", {"warmup_steps": 180, "every": 60, "momentum": 0.95}),
    "ACR, tau 1": Row("ACR", {"warmup_steps": 180, "every": 60, "momentum": 0.95, "tau_balanced": 1.0}),
    "BOAT": Row("BOAT", {"momentum": 0.98}),
    "FixMatchABC": Row("FixMatchABC", {"strong_views": 2}),
    "FixMatchABC, expectation": Row("FixMatchABC", {"strong_views": 2, "draw_images": False}),
}
"""Of each method the authors' defaults, but for what counts steps: they are scaled to the length of these runs.

The rows with a tau have a weaker logit adjustment than the authors', whose models fit their labels better by the end.
With 10 updates, SimPro's first estimate has more than the few classes that are learned first.
"""


def settings(row: Row, unlabeled: str, root: str, labeled: int) -> dict[str, Any]:
    """Compose the configuration of a run."""
    reverse = unlabeled == "reversed"
    model = {"network": {"class_path": "CifarResNet", "init_args": {"depth": 8}}, "ema_decay": 0.99}
    optimizer = {"class_path": "FixMatchSGD", "init_args": {"lr": 0.05}}
    schedule = {"class_path": "torch.optim.lr_scheduler.ConstantLR", "init_args": {"factor": 1.0, "total_iters": 0}}
    counts = {"labeled_max": labeled, "labeled_gamma": GAMMA, "unlabeled_max": UNLABELED, "unlabeled_gamma": GAMMA}
    callbacks = [{"class_path": "LastEvaluations", "init_args": {"n": LAST}}]
    if row.remedy is not None:
        largest = UNLABELED if row.target == "true" else labeled
        counts_of = darp_counts(largest, GAMMA, 10)
        target = counts_of[::-1] if reverse and row.target == "true" else counts_of
        own = {} if row.target is None else {"target": target}
        callbacks.append({"class_path": row.remedy, "init_args": {**own, **row.remedy_arguments}})
    return {
        "data": {
            "class_path": "FashionMNIST",
            "init_args": {
                "root": root,
                "class_counts": {"class_path": "DARPCounts", "init_args": {**counts, "unlabeled_reverse": reverse}},
                "labeled_batch_size": 32,
                "unlabeled_ratio": 2,
                "steps_per_epoch": STEPS_PER_EPOCH,
                "validate_on_test": True,
            },
        },
        "model": {
            "class_path": row.method,
            "init_args": {**model, "optimizer": optimizer, "lr_scheduler": schedule, **row.arguments},
        },
        "trainer": {
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            "devices": 1,
            "log_every_n_steps": 60,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks+": callbacks,
        },
    }


def last_mean(folder: Path, metric: str) -> float | None:
    """Read the mean of a metric over the last evaluations of a run, in percent; None while it is not done."""
    file = folder / DONE
    return 100 * float(json.loads(file.read_text())["metrics"][metric]["mean"]) if file.exists() else None


def cells(runs: Path, name: str, unlabeled: str, seeds: int) -> Iterator[str]:
    """Give the cells of a row for one unlabeled set: balanced accuracy, and the recall of the three groups."""
    for metric in ("balanced_accuracy", "many", "medium", "few"):
        found = [last_mean(folder_of(runs, name, unlabeled, seed), metric) for seed in range(seeds)]
        yield over_seeds(found, deviation=metric == "balanced_accuracy")


def table(runs: Path, methods: list[str], unlabeled: list[str], seeds: int) -> Iterator[str]:
    """Lay out what is done, as the lines of a table in Markdown; a row without any run is left out."""
    columns = [f"{name}: {column}" for name in unlabeled for column in ("balanced accuracy", "many", "medium", "few")]
    yield f"| method | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for method in methods:
        row = [cell for name in unlabeled for cell in cells(runs, method, name, seeds)]
        if any(row):
            yield f"| {method} | {' | '.join(row)} |"


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data")
    parser.add_argument("--runs", type=Path, default=Path("runs/long_tail_table"))
    parser.add_argument("--methods", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    parser.add_argument("--unlabeled", nargs="+", choices=UNLABELED_SETS, default=list(UNLABELED_SETS))
    parser.add_argument("--labeled", type=int, default=LABELED, help="Labeled images of the first class; N1.")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="Number of runs at a time.")
    parser.add_argument("--show", action="store_true", help="Train nothing, print the table of what is done.")
    args = parser.parse_args()
    if not args.show:
        in_parallel(
            args.workers,
            (
                partial(
                    train, folder_of(args.runs, method, unlabeled, seed),
                    settings(ROWS[method], unlabeled, args.root, args.labeled), seed, DONE,
                )
                for seed in range(args.seeds)
                for method in args.methods
                for unlabeled in args.unlabeled
            ),
        )  # fmt: skip
    print(*table(args.runs, args.methods, args.unlabeled, args.seeds), sep="\n")


if __name__ == "__main__":
    main()
