"""Faults of `tailmatch label` that it finds before Spark starts, so that these rows need no Spark."""

from tests.bad_inputs.engine import Row, row
from tests.bad_inputs.prepared import BEST
from tests.bad_inputs.spoil import write

SPARK = f"label --images photos --model {BEST} --output new"


def on(images: str, *more: str) -> str:
    """Give a command with other images."""
    return " ".join((SPARK.replace("photos", images), *more))


ROWS: list[Row] = [
    row("no images to label", "label --model a.ckpt --output new", "--images", code=2, lines=12),
    row("an output of labels that exists", SPARK.replace("new", "images"), "images exists", "--overwrite true"),
    row("a file as folder of labels", SPARK.replace("new", "table.csv"), "table.csv", "is a file", "folder"),
    row("an empty output of labels", f"{SPARK.replace('new', '')}''", "output is empty"),
    row("a batch of no images to label", f"{SPARK} --batch_size 0", "batch_size is 0"),
    row("a negative number of top classes", f"{SPARK} --top -1", "top is -1"),
    row("more top classes than classes", f"{SPARK} --top 4", "top is 4", "[1, 3]"),
    row("a share of bad images above 1", f"{SPARK} --max_bad_share 2", "max_bad_share is 2.0", "[0, 1]"),
    row("a model to label with that is missing", SPARK.replace(BEST, "no.ckpt"), "no.ckpt"),
    row("a table as model", SPARK.replace(BEST, "table.csv"), "table.csv"),
    row("a program that is not trusted", SPARK.replace(BEST, "a.pt2"), "a.pt2", "--trust_checkpoint true", given=[write("a.pt2", b"text")]),
    row("a program that is text", f"{SPARK.replace(BEST, 'a.pt2')} --trust_checkpoint true", "a.pt2", "no program", given=[write("a.pt2", b"text")]),
    row("another size than the model's", f"{SPARK} --image_size 16", "image_size is 16", "8 x 8"),
    row("images to label that are missing", on("nowhere"), "nowhere"),
    row("a folder to label without images", on("runs/good/checkpoints"), "has no images in it"),
    row("a table to label without its column", on("table.csv", "--image_column path"), "no column 'path'", "target"),
    row("a root without a table", on("photos", "--root images"), "root is 'images'", "no table"),
    row("text as images to label", on("small.yaml"), "small.yaml", "folder or a table"),
    row("Parquet to label that is text", on("a.parquet"), "a.parquet is no Parquet file", given=[write("a.parquet", "text")]),
]  # fmt: skip
