"""Faults of tables."""

import io

import pyarrow as pa
from pyarrow import parquet

from tests.bad_inputs.engine import Row, row
from tests.bad_inputs.prepared import BEST, TABLE
from tests.bad_inputs.spoil import cut, fifo, html, recode, replace, rights, write

FIRST = "images/train/cat/0.png,cat,train,red"
PARQUET = f"{TABLE} --data.table table.parquet"
LISTED = f"predict --ckpt_path {BEST} --data UnlabeledTable --data.table list.csv --output out.csv"


def parquet_file(**columns: object) -> bytes:
    """Give the bytes of a Parquet file."""
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def cell(name: str, new: str, *says: str, options: str = "", **more: object) -> Row:
    """Make a row of a table whose first row of data is another one; the message must name the table."""
    return row(name, f"{TABLE} {options}", "table.csv", *says, given=[replace("table.csv", FIRST, new)], **more)


def file(name: str, *spoils: object, says: tuple[str, ...] = (), **more: object) -> Row:
    """Make a row of a table that is spoiled as a whole; the message must name it."""
    return row(name, TABLE, "table.csv", *says, given=spoils, **more)


def option(name: str, options: str, *says: str, **more: object) -> Row:
    """Make a row of wrong options for a right table."""
    return row(name, f"{TABLE} {options}", *says, **more)


ROWS = [
    option("no such table", "--data.table nowhere.csv", "nowhere.csv"),
    option("a folder as table", "--data.table images", "images"),
    option("a table of another suffix", "--data.table table.xlsx", "table.xlsx", ".csv", given=[write("table.xlsx", "PK")]),
    option("a table without a suffix", "--data.table table", "table", "delimiter", given=[write("table", "image,target\n")]),
    file("a table that is a FIFO", fifo("table.csv")),
    file("a table that may not be read", rights("table.csv", 0), says=("ermission",)),
    file("an empty table", write("table.csv"), says=("empty",)),
    file("a header alone", write("table.csv", "image,target\n"), says=("empty",)),
    file("a web page as table", html("table.csv")),
    file("a table in UTF-16", recode("table.csv", "utf-16"), says=("encoding",)),
    file("a table in Latin-1", recode("table.csv", "latin-1", ",cat,train", ",caf\xe9,train"), says=("row 2", "column 2", "encoding")),
    file("a table with a NUL", replace("table.csv", FIRST, FIRST.replace("cat,", "c\0t,")), says=("row 2",)),
    file("binary data as table", write("table.csv", bytes(range(256)) * 4)),
    file("semicolons", recode("table.csv", "utf-8", ",", ";"), says=("image", "delimiter")),
    file("no header", replace("table.csv", "image,target,split,color\n", ""), says=("image", "columns")),
    file("no column of images", replace("table.csv", "image,", "file,"), says=("image", "file")),
    file("no column of targets", replace("table.csv", "target,", "label,"), says=("target", "label")),
    file("a column in other letters", replace("table.csv", "image,", "Image,"), says=("image", "Image")),
    file("a column twice", replace("table.csv", "color", "target"), says=("two columns", "target")),
    file("only unlabeled rows", write("table.csv", "image,target\nimages/unlabeled/0.png,\nimages/unlabeled/1.png,\n"), says=("target",)),
    row("a table of a single class", TABLE, "['cat']", "two or more", given=[write("table.csv", "image,target\n" + "".join(f"images/train/cat/{n}.png,cat\n" for n in range(6)))]),
    cell("a row too long", f"{FIRST},more", "row 2", "5 cells"),
    cell("a row too short", "images/train/cat/0.png,cat", "row 2", "2 cells"),
    cell("a blank row in the middle", f"\n{FIRST}", "row 2"),
    cell("an open quote", '"images/train/cat/0.png,cat,train,red', lines=4),
    cell("a cell of a megabyte", f"images/train/cat/0.png,{'c' * 1_000_000},train,red", "line 2"),
    cell("an empty path", ",cat,train,red", "row 2", "image"),
    cell("a missing image", "images/train/cat/99.png,cat,train,red", "row 2", "99.png", lines=4),
    cell("an image twice", "images/train/cat/1.png,cat,train,red", "row 3", "images/train/cat/1.png"),
    cell("a path outside of the root", "../../../../../../../../etc/passwd,cat,train,red", "row 2", "etc/passwd"),
    cell("an absolute path", "/etc/passwd,cat,train,red", "row 2", "/etc/passwd"),
    cell("a folder as image", "images/train/cat,cat,train,red", "row 2", "images/train/cat", lines=4),
    cell("a path of Windows", r"images\train\cat\0.png,cat,train,red", "row 2", lines=4),
    cell("a path too long", f"{'a' * 5000}.png,cat,train,red", "row 2", lines=4),
    cell("an unknown split", "images/train/cat/0.png,cat,training,red", "row 2", "training", "train"),
    cell("a validation image without a class", "images/train/cat/0.png,,val,red", "row 2", "val"),
    cell("a number among names", "images/train/cat/0.png,7,train,red", "7"),
    option("a delimiter of two characters", "--data.delimiter ';;'", "delimiter", ";;"),
    option("an empty delimiter", "--data.delimiter=", "delimiter"),
    option("an unknown encoding", "--data.encoding utf-88", "encoding", "utf-88"),
    option("the wrong encoding", "--data.encoding ascii", "table.csv", "ascii", given=[replace("table.csv", ",red", ",r\xf6t")]),
    option("too few names of columns", "--data.columns [image,target]", "columns", "[image,target]".replace(",", "', '")[1:-1]),
    option("names of columns and a header", "--data.columns [image,target,split,color]", "row 1"),
    option("an unknown category", "--data.category_columns [size]", "size", "color"),
    option("the target as category", "--data.category_columns [target]", "category_columns", "target"),
    option("an unknown column of splits", "--data.split_column fold", "fold", "split"),
    option("a count of -3", "--data.min_class_count -3", "min_class_count is -3"),
    option("a count above all classes", "--data.min_class_count 1000", "min_class_count", "1000"),
    option("a holdout beside a split", "--data.val_holdout 0.1", "val_holdout", "val"),
    option("a suffix that is there already", "--data.image_suffix .png", "0.png.png", lines=40),
    option("another root", "--data.root photos", "photos", lines=40),
    option("no such unlabeled table", "--data.unlabeled_table more.csv", "more.csv"),
    option("no such unlabeled root", "--data.unlabeled_root more", "more"),
    row("a table that is no Parquet", PARQUET, "table.parquet", given=[write("table.parquet", "image,target\n")]),
    row("a Parquet file cut in the middle", PARQUET, "table.parquet", given=[write("table.parquet", parquet_file(image=["a.png"], target=["a"])), cut("table.parquet")]),
    row("a Parquet file without rows", PARQUET, "table.parquet", "empty", given=[write("table.parquet", parquet_file(image=[], target=[]))]),
    row("a column of lists in Parquet", PARQUET, "table.parquet", "target", given=[write("table.parquet", parquet_file(image=["photos/0.png"], target=[[1, 2]]))]),
    row("a column of bytes in Parquet", PARQUET, "table.parquet", "image", given=[write("table.parquet", parquet_file(image=[b"\xff\xfe"], target=["a"]))]),
    row("NaN as a class in Parquet", PARQUET, "table.parquet", "target", given=[write("table.parquet", parquet_file(image=["photos/0.png", "photos/1.png"], target=[float("nan"), 1.0]))]),
    row("halves as classes in Parquet", PARQUET, "table.parquet", "target", "1.5", given=[write("table.parquet", parquet_file(image=["photos/0.png", "photos/1.png"], target=[1.5, 1.0]))]),
    row("a prediction of no such table", LISTED, "list.csv"),
    row("a prediction of an empty table", LISTED, "list.csv", "empty", given=[write("list.csv", "image\n")]),
    row("a prediction of a missing image", LISTED, "list.csv", "row 3", "photos/9.png", given=[write("list.csv", "image\nphotos/0.png\nphotos/9.png\n")], lines=4),
    row("a prediction of one image twice", LISTED, "list.csv", "photos/0.png", given=[write("list.csv", "image\nphotos/0.png\nphotos/0.png\n")]),
]  # fmt: skip
