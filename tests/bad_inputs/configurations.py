"""Faults of YAML files."""

from tests.bad_inputs.engine import Row, row
from tests.bad_inputs.prepared import FIT
from tests.bad_inputs.spoil import append, cut_within, fifo, html, make, pointer, recode, replace, rights, write

MINE = f"{FIT} --config mine.yaml"
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = "[" * 20_000 + "]" * 20_000


def holding(name: str, content: str | bytes, *says: str, **more: object) -> Row:
    """Make a row of a file `mine.yaml`, which the message must name unless it is one of the parser."""
    named = () if more.get("code") == 2 else ("mine.yaml",)  # the parser names the key
    return row(name, MINE, *named, *says, given=[write("mine.yaml", content)], **more)


ROWS = [
    row("a missing file", MINE, "mine.yaml", "no such file"),
    row("a typo in a packaged name", "fit --config methods/fixmach.yaml", "methods/fixmach.yaml", "methods/fixmatch.yaml", lines=4),
    row("a missing packaged file", "fit --config data/nothing.yaml", "data/nothing.yaml", "tailmatch configs"),
    row("a GPU where there is none", f"{FIT} --config trainer/gpu.yaml", "accelerator is gpu", "--trainer.accelerator cpu"),
    row("a folder as configuration", MINE, "mine.yaml", given=[make("mine.yaml")]),
    row("a FIFO as configuration", MINE, "mine.yaml", given=[fifo("mine.yaml")]),
    row("a file that may not be read", MINE, "mine.yaml", "ermission", given=[write("mine.yaml"), rights("mine.yaml", 0)]),
    row("a checkpoint as configuration", "fit --config runs/good/checkpoints/best.ckpt", "best.ckpt"),
    row("a web page as configuration", MINE, "mine.yaml", given=[html("mine.yaml")], lines=6),
    row("a pointer of git-lfs as configuration", MINE, "mine.yaml", given=[pointer("mine.yaml")]),
    holding("an empty file", "", "no settings"),
    holding("only comments", "# nothing yet\n", "no settings"),
    holding("a single number", "5\n"),
    holding("an open bracket", "model:\n  init_args: {threshold: 0.9\ntrainer:\n", "line 3", lines=8),
    holding("an open quote", "run_dir: 'new\n", "line", lines=8),
    holding("a tab", "trainer:\n\tmax_epochs: 1\n", "line 2", lines=8),
    holding("no space after the colon", "trainer:\n  max_epochs:1\n", "max_epochs:1", code=2),
    holding("a key twice", "trainer:\n  max_epochs: 1\n  max_epochs: 2\n", "max_epochs", "line 3"),
    holding("UTF-16", "trainer: {max_epochs: 1}\n".encode("utf-16"), "UTF-8"),
    holding("Latin-1", "run_dir: caf\xe9\n".encode("latin-1"), "UTF-8"),
    holding("a NUL", "trainer: {max_epochs: 1}\0\n", "line 1"),
    holding("two documents", "trainer: {max_epochs: 1}\n---\nmodel: {}\n", "document", lines=8),
    holding("a tag of Python", "model: !!python/object/apply:os.system ['true']\n", "line 1", "python/object", lines=8),
    holding("a tag of its own", "model: !mine {a: 1}\n", "line 1", "!mine", lines=8),
    holding("an alias of itself", "trainer: &a {callbacks: *a}\n"),
    holding("an alias bomb", BOMB),
    holding("deep nesting", f"trainer: {DEEP}\n"),
    holding("an unknown section", "modell: {a: 1}\n", "modell", "model", code=2),
    holding("an unknown key", "trainer: {max_epoch: 1}\n", "max_epoch", code=2),
    holding("a word for a number", "trainer: {max_epochs: ten}\n", "max_epochs", "ten", code=2),
    holding("a comma for a point", "model: {init_args: {threshold: 0,95}}\n", "--model", "95", code=2),
    row("a list for a section", MINE, "trainer is [1, 2]", given=[write("mine.yaml", "trainer: [1, 2]\n")]),
    holding("a text for a section", "trainer: cpu\n", "trainer", code=2),
    holding("a number for a class", "model: 5\n", "model", code=2),
    holding("a class without class_path", "trainer: {callbacks: [{init_args: {alpha: 2}}]}\n", "callbacks", code=2),
    holding("a class_path that is a number", "model: {class_path: 5}\n", "class_path", code=2),
    holding("a class_path without a module", "model: {class_path: Nothing}\n", "Nothing", code=2),
    holding("a typo in init_args", "model: {class_path: FixMatch, init_arg: {}}\n", "init_arg", code=2),
    holding("arguments beside class_path", "model: {class_path: FixMatch, threshold: 0.9}\n", "threshold", code=2),
    holding("callbacks that are a text", "trainer: {callbacks: DRAP}\n", "DRAP", "DARP", code=2),
    row("a value out of its domain", MINE, "threshold is 7", given=[write("mine.yaml", "model: {init_args: {threshold: 7}}\n")]),
    holding("a path to another YAML file", "model: other.yaml\n", "No module named 'other'", code=2),
    holding("settings of a command in its section", "fit: {trainer: {max_epochs: 1}}\n", "fit", code=2),
    row("settings before their class", "fit --config mine.yaml --config small.yaml", "mine.yaml", "small.yaml", given=[write("mine.yaml", "model: {init_args: {threshold: 0.5}}\n")]),
    row("a configuration cut in the middle", "fit --config small.yaml --run_dir new", "small.yaml", "line", given=[replace("small.yaml", "depth: 8}}}", "depth: 8")], lines=8),
    row("JSON with a comma too many", f"{FIT} --config mine.json", "mine.json", "line", given=[write("mine.json", '{"trainer": {"max_epochs": 1,,}}')], lines=8),
    row("a configuration of a run that was cut", "fit --config runs/good/config.yaml --run_dir new", "config.yaml", given=[cut_within("runs/good/config.yaml", "labeled_sampling")], lines=8),
    row("UTF-16 of an editor", "fit --config small.yaml --run_dir new", "small.yaml", "UTF-8", given=[recode("small.yaml", "utf-16")]),
    row("a repeated key in a long file", "fit --config small.yaml --run_dir new", "small.yaml", "trainer", given=[append("small.yaml", "trainer: {max_epochs: 3}\n")]),
]  # fmt: skip
