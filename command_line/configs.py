"""Find, list and copy the YAML files of this package (`tailmatch configs`)."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path


def main(args: Sequence[str]) -> None:
    """Run `tailmatch configs` or `tailmatch configs copy NAME [TO]`."""
    parser = argparse.ArgumentParser(
        prog="tailmatch configs",
        usage="tailmatch configs [copy NAME [TO]]",
        description="List the configurations of this package, with the first line of each file. `--config` accepts "
        "their names, as in `tailmatch fit --config demo.yaml`; an existing file of that path takes precedence.",
    )
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND", prog="tailmatch configs")
    copying = commands.add_parser(
        "copy", help="copy a configuration to edit it", description="Copy a configuration to edit it."
    )
    copying.add_argument("name", help="name of the configuration, such as data/cifar10_lt.yaml")
    copying.add_argument(
        "to", nargs="?", default=".", type=Path, help="file or folder to copy to (default: the current folder)"
    )
    asked = parser.parse_args(args)
    if asked.command is None:
        width = max(map(len, packaged()))
        lines = [f"{name:{width}}  {first_line(listed)}" for name, listed in packaged().items()]
        try:
            print("\n".join(lines), flush=True)
        except BrokenPipeError:  # `tailmatch configs | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    file = find(asked.name)
    if file is None:
        copying.error(f"no configuration {asked.name}{suggestion(asked.name)}")
    target: Path = asked.to / file.name if asked.to.is_dir() else asked.to
    if os.path.lexists(target):
        copying.error(f"{target} exists: name another file, or move it away")
    if not target.parent.is_dir():
        copying.error(f"{target}: there is no folder {target.parent}")
    copy(file, target)
    print(f"copied: {target}")


def copy(file: Path, target: Path) -> None:
    """Copy a file to a path where there is none, completely or not at all.

    Raises:
        OSError: The system refuses to write `target`, which the error names.
    """
    content = file.read_bytes()
    try:
        with target.open("xb") as opened:
            opened.write(content)
    except OSError as error:
        if error.filename is None:  # it was opened, and the disk is full
            target.unlink()
            error.filename = str(target)
        raise


def find(name: str) -> Path | None:
    """Find the packaged file of a name, with or without `configs/` in front; None if there is none."""
    return packaged().get(name.removeprefix("./").removeprefix("configs/"))


def suggestion(name: str) -> str:
    """Suggest packaged files with similar names, or how to list all: the end of a message about an unknown name."""
    asked = Path(name.removeprefix("./").removeprefix("configs/")).with_suffix("")
    study = asked.parts[:1] == ("studies",)  # which is for `sweep`, not for `--config`
    known = {file: Path(file).with_suffix("") for file in packaged() if file.startswith("studies/") == study}
    near = difflib.get_close_matches(str(asked), map(str, known.values()), cutoff=0.7)
    of_file = difflib.get_close_matches(asked.name, [stem.name for stem in known.values()], cutoff=0.7)
    found = [f"{stem}.yaml" for stem in near]
    found += [file for file, stem in known.items() if stem.name in of_file and file not in found]
    return f"\n  Did you mean: {', '.join(found[:3])}?" if found else "; `tailmatch configs` lists all there are"


def packaged() -> dict[str, Path]:
    """Map the names of all packaged files, such as `data/cifar10_lt.yaml`, to their paths."""
    root = Path(str(files("tailmatch") / "configs"))
    return {
        file.relative_to(root).as_posix(): file for file in sorted(root.glob("*.yaml")) + sorted(root.glob("*/*.yaml"))
    }


def first_line(file: Path) -> str:
    """Read the first comment of a file, which describes it."""
    with file.open() as lines:
        return next((line.removeprefix("#").strip() for line in lines if line.startswith("#")), "")
