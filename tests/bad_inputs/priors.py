"""Faults of class priors: files of `UnlabeledPriorEstimator`, and numbers that are typed."""

import json

from tests.bad_inputs.engine import Row, row
from tests.bad_inputs.prepared import CLASSES, FIT
from tests.bad_inputs.spoil import cut, fifo, html, recode, rights, write

DARP = f"{FIT} --trainer.callbacks+=DARP --trainer.callbacks.warmup_epochs 0 --trainer.callbacks.target"
ADJUSTED = f"{FIT} --trainer.callbacks+=LogitAdjustment --trainer.callbacks.prior"


def of(name: str, *spoils: object, says: tuple[str, ...] = (), **more: object) -> Row:
    """Make a row of a spoiled file, which the message must name."""
    return row(name, f"{DARP} prior.json", "prior.json", *says, given=spoils, **more)


def counts(name: str, value: object, *says: str, **more: object) -> Row:
    """Make a row of a file with these counts."""
    content = json.dumps({"counts": value, "class_names": CLASSES})
    return of(f"counts: {name}", write("prior.json", content), says=("counts", *says), **more)


ROWS = [
    row("no such prior", f"{DARP} nowhere.json", "nowhere.json"),
    row("a typo in oracle", f"{DARP} orcale", "orcale", "oracle"),
    row("a folder as prior", f"{DARP} images", "images"),
    row("the truth where it is unknown", f"{DARP} oracle", "oracle", "unlabeled"),
    of("a FIFO as prior", fifo("prior.json")),
    of("a prior that may not be read", rights("prior.json", 0), says=("ermission",)),
    of("an empty prior", write("prior.json")),
    of("a web page as prior", html("prior.json")),
    of("a prior cut in the middle", cut("prior.json")),
    of("a prior in UTF-16", recode("prior.json", "utf-16")),
    of("a prior that is a list", write("prior.json", "[3, 2, 1]"), says=("counts",)),
    of("deep nesting", write("prior.json", "[" * 100_000)),
    of("no counts", write("prior.json", json.dumps({"class_names": CLASSES})), says=("counts",)),
    of("no class names", write("prior.json", json.dumps({"counts": [3, 2, 1]})), says=("class_names",)),
    of("another order", write("prior.json", json.dumps({"counts": [3, 2, 1], "class_names": CLASSES[::-1]})), says=("cat",)),
    of("class names that are a text", write("prior.json", json.dumps({"counts": [3, 2, 1], "class_names": "cat dog owl"})), says=("class",)),
    counts("a dict", {"0": 3, "1": 2, "2": 1}),
    counts("a text", "111"),
    counts("true and false", [True, True, False]),
    counts("a number", 6),
    counts("with null", [3, None, 1]),
    counts("with NaN", [3, float("nan"), 1], "nan"),
    counts("negative", [3, -2, 1], "-2"),
    counts("all 0", [0, 0, 0], "0"),
    counts("too many", [3, 2, 1, 1], "4", "3"),
    counts("beyond any number", [10**400, 2, 1]),
    row("a list too short", f"{DARP} [1,2]", "target", "2", "3"),
    row("a list with a negative number", f"{DARP} [1,2,-1]", "target", "-1"),
    row("a list of words", f"{DARP} [many,few,few]", "target", "many", code=2),
    row("a list with NaN", f"{DARP} [1,.nan,1]", "target", "nan"),
    row("a number for a list", f"{DARP} 5", "no prior file 5"),
    row("no such prior of an adjustment", f"{ADJUSTED} nowhere.json", "nowhere.json", code=2),
    row("a prior too short of an adjustment", f"{ADJUSTED} [1,2]", "prior", "2", "3"),
    row("a prior with a negative number of an adjustment", f"{ADJUSTED} [1,2,-1]", "prior", "-1"),
    row("a web page as prior of an adjustment", f"{ADJUSTED} prior.json", "prior.json", code=2, given=[html("prior.json")]),
]  # fmt: skip
