"""`tailmatch refine`: refine pseudo-labels to given class totals, by DARP, on this machine or on Spark."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tailmatch.callbacks.remedies.darp.label_files import MAX_ERROR, Refinement, refine_labels
from tailmatch.callbacks.remedies.darp.solver import ALPHA, TOLERANCE
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.class_names import name_column
from tailmatch.datamodules.locks import sole_output
from tailmatch.spark.barrier import EXCHANGES
from tailmatch.spark.refine import refine_on_spark


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch refine",
        description="Refine pseudo-labels to given class totals, by DARP: fit prices to all rows or to a sample, and "
        "apply them chunk by chunk; or apply prices that were fitted before.",
    )
    made.add_argument(
        "--labels",
        required=True,
        help="Pseudo-label file with probabilities (.npz, .parquet), or a folder of .parquet files.",
    )
    made.add_argument("--output", help="Pseudo-label file to write, .npz or .parquet; on Spark a folder.")
    made.add_argument("--target", type=Path, help="Class totals: a prior.json of UnlabeledPriorEstimator.")
    made.add_argument("--sample", type=int, help="Number of rows to fit to, drawn at random (default: all).")
    made.add_argument("--prices", type=Path, help="File of prices to apply, instead of a fit to --target.")
    made.add_argument("--save_prices", type=Path, help="File to write the fitted prices to, such as darp.json.")
    made.add_argument("--alpha", type=float, default=ALPHA, help="See DARPRefinement (default: %(default)s).")
    made.add_argument("--tolerance", type=float, default=TOLERANCE, help="See DARPRefinement (default: %(default)s).")
    made.add_argument(
        "--max_error",
        type=float,
        default=MAX_ERROR,
        help="Largest standard error of a class total that a sample may leave, as a share (default: %(default)s).",
    )
    made.add_argument("--seed", type=int, default=0, help="Seed of the sample (default: %(default)s).")
    made.add_argument(
        "--overwrite", choices=("true", "false"), default="false", help="Replace existing files (default: false)."
    )
    made.add_argument(
        "--spark",
        choices=("true", "false"),
        default="false",
        help="Leave the rows in the executors of Apache Spark, and write a folder of Parquet files (default: false).",
    )
    made.add_argument("--tasks", type=int, help="On Spark: number of tasks that fit together (default: all slots).")
    made.add_argument(
        "--exchange",
        choices=EXCHANGES,
        help="On Spark: how these tasks exchange sums: over ports of their own (gloo), through Spark's driver, which "
        "takes a second for each (allgather), or in the first way that works (auto, the default).",
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch refine`."""
    asked = vars(parser().parse_args(args))
    asked["overwrite"] = asked["overwrite"] == "true"
    on_spark = asked.pop("spark") == "true"
    for_spark = {name: value for name in ("tasks", "exchange") if (value := asked.pop(name)) is not None}
    if for_spark and not on_spark:
        raise SettingsError(f"{' and '.join(for_spark)} are for Spark: add --spark true")
    with ExitStack() as held:
        for path in (asked["save_prices"], None if on_spark else asked["output"]):
            if path is not None:
                held.enter_context(sole_output(Path(path)))
        done = refine_on_spark(**asked, **for_spark) if on_spark else refine_labels(**asked)
    print(table(done))
    for path, noun in ((asked["save_prices"], "prices"), (asked["output"], "refined pseudo-labels")):
        if path is not None:
            print(f"{noun}: {path}", flush=True)


def table(done: Refinement) -> str:
    """Lay out the class totals as text."""
    fitted = done.fitted
    header, *names = name_column("class", fitted.class_names)
    lines = [f"{header}  {'target':>14}  {'standard error':>14}  {'total':>14}  {'off by':>8}"]
    for k, name in enumerate(names):
        target, error = float(done.target[k]), float(done.errors[k])
        total, off = "", ""
        if done.totals is not None:
            total = f"{float(done.totals[k]):,.1f}"
            off = f"{100 * (float(done.totals[k]) / target - 1):+.2g}%" if target else ""
        lines.append(f"{name}  {target:>14,.1f}  {100 * error:>13.2g}%  {total:>14}  {off:>8}")
    lines.append(
        f"fitted to {fitted.rows:,} rows, of which a class total is off by at most {100 * fitted.residual:.2g}%"
    )
    return "\n".join(lines)
