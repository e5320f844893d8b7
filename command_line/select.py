"""`tailmatch select`: keep the most confident pseudo-labels of each class, on this machine or on Spark."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tailmatch.datamodules.class_names import name_column
from tailmatch.datamodules.locks import sole_output
from tailmatch.datamodules.pseudo_labels.selection import Selection, select_labels
from tailmatch.spark.select import select_on_spark


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch select",
        description="Write the most confident pseudo-labels of each class to a file that a training takes. Of images "
        "with the same content, by their digests, one is kept.",
    )
    made.add_argument("--labels", required=True, help="Pseudo-label file, or a folder of .parquet files.")
    made.add_argument("--output", type=Path, required=True, help="Pseudo-label file to write, .npz or .parquet.")
    rule = made.add_mutually_exclusive_group(required=True)
    rule.add_argument("--per_class", type=int, help="Number of rows of each class.")
    rule.add_argument("--share", type=float, help="Share of the rows of each class, in (0, 1].")
    rule.add_argument("--threshold", type=float, help="Least confidence.")
    made.add_argument(
        "--overwrite", choices=("true", "false"), default="false", help="Replace an existing file (default: false)."
    )
    made.add_argument(
        "--spark",
        choices=("true", "false"),
        default="false",
        help="Leave the rows in the executors of Apache Spark; those selected come to this machine (default: false).",
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch select`."""
    asked = vars(parser().parse_args(args))
    asked["overwrite"] = asked["overwrite"] == "true"
    on_spark = asked.pop("spark") == "true"
    with sole_output(asked["output"]):
        done = select_on_spark(**asked) if on_spark else select_labels(**asked)
    print(table(done))
    print(f"{int(done.selected.sum()):,} pseudo-labels: {asked['output']}", flush=True)


def table(done: Selection) -> str:
    """Lay out the numbers of each class as text."""
    header, *names = name_column("class", done.class_names)
    lines = [f"{header}  {'rows':>12}  {'selected':>12}  {'least confidence':>16}"]
    for name, count, selected, least in zip(names, done.counts, done.selected, done.least, strict=True):
        shown = f"{least:.4f}" if selected else ""
        lines.append(f"{name}  {count:>12,}  {selected:>12,}  {shown:>16}")
    if done.repeated:
        lines.append(f"{done.repeated:,} rows of content that another row has were left out")
    return "\n".join(lines)
