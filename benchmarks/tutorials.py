"""Run a tutorial as it stands, at its full size, and put the pictures that it makes beside it.

    python -m benchmarks.tutorials docs/tutorials/python.md --folder tutorial

The folder has the data that the tutorial names. Each block of Python and each command is run there, in order, and the
seconds that it takes are printed. `tests/docs/test_tutorials.py` runs the same blocks on small data.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.documented_commands import Command, pictures_of, steps_of


def main() -> None:
    """Run the tutorial that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="the page of the tutorial")
    parser.add_argument("--folder", type=Path, required=True, help="the folder to work in")
    arguments = parser.parse_args()
    page = arguments.page.resolve()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    for step in steps_of(page):
        start = time.perf_counter()
        run(step, page, names)
        print(f"{time.perf_counter() - start:.0f} s: {step if isinstance(step, Command) else step.splitlines()[0]}")
    for name in pictures_of(page):
        shutil.copy(name, page.parent / name)


def run(step: Command | str, page: Path, names: dict[str, Any]) -> None:
    """Run a command, or code that sees and defines names."""
    if isinstance(step, Command):
        module = "tailmatch.cli" if step.program == "tailmatch" else step.program
        subprocess.run([sys.executable, "-m", module, *step.words], check=True)
    else:
        exec(compile(step, str(page), "exec"), names)


if __name__ == "__main__":
    main()
