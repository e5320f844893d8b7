"""`tailmatch label`: label the images of a folder, a table or Parquet files on Apache Spark."""

import argparse
from collections.abc import Sequence

from tailmatch.lightning_modules.inference.arrow_labels import BATCH
from tailmatch.spark.label import MAX_BAD_SHARE, Labeled, label_images


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="tailmatch label",
        description="Label images on Apache Spark, on all cores of this machine or, started by spark-submit, on a "
        "cluster. The labels are those of tailmatch predict. The output is a folder of Parquet files that refine and "
        "select read; an image that cannot be read is a row with an error.",
    )
    made.add_argument(
        "--images",
        required=True,
        help="Folder of image files, at any depth; or table with their paths (.csv, .tsv, .txt, .parquet); or Parquet "
        "with the columns key (or path) and content, the bytes of the files: a file, a folder or a URL such as s3a://.",
    )
    made.add_argument("--model", required=True, help="Checkpoint (path or URL), or program of tailmatch export (.pt2).")
    made.add_argument("--output", required=True, help="Folder to write, or a URL such as s3a://.")
    made.add_argument(
        "--image_column", default="image", help="Column of a table with the path of each image (default: %(default)s)."
    )
    made.add_argument("--root", help="Folder that the paths in a table are relative to (default: that of the table).")
    made.add_argument("--image_suffix", default="", help="Suffix to append to each path of a table, such as .jpg.")
    made.add_argument(
        "--probs",
        choices=("true", "false"),
        default="false",
        help="Write the probabilities of all classes, which refine needs (default: false).",
    )
    made.add_argument(
        "--top", type=int, default=0, help="Number of most likely classes to write, with their probabilities."
    )
    made.add_argument(
        "--batch_size",
        type=int,
        default=BATCH,
        help="Number of images that pass through the network together (default: %(default)s, that of predict).",
    )
    made.add_argument(
        "--image_size", type=int, help="Height and width of the images in pixels, for a model that does not say them."
    )
    made.add_argument(
        "--max_bad_share",
        type=float,
        default=MAX_BAD_SHARE,
        help="Largest share of images that may have an error; with more, nothing is written (default: %(default)s).",
    )
    made.add_argument(
        "--overwrite", choices=("true", "false"), default="false", help="Replace an existing folder (default: false)."
    )
    made.add_argument(
        "--trust_checkpoint",
        choices=("true", "false"),
        default="false",
        help="Let the model run code that is not of this package: only if you trust its maker. A .pt2 file is code.",
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run `tailmatch label`."""
    asked = vars(parser().parse_args(args))
    asked["trust"] = asked.pop("trust_checkpoint")
    for name in ("probs", "overwrite", "trust"):
        asked[name] = asked[name] == "true"
    print(summary(label_images(**asked), asked["output"]), flush=True)


def summary(done: Labeled, output: str) -> str:
    """Say in a line what was labeled."""
    rate = f"{done.images:,} images in {done.seconds:,.1f} s: {output}"
    if not done.bad:
        return rate
    return f"{rate}\n{done.bad:,} of them have an error instead of a label: {'; '.join(done.examples)}"
