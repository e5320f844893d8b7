"""Every kind of bad input gives one message and leaves the disk as it was; the modules beside this have the rows."""

from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from tests.bad_inputs.engine import Row, call, check, copy_of, row, run
from tests.bad_inputs.prepared import EXPORT, FIT, LABEL, LABELS, PREDICT, RESUME, TABLE, TEST, prepare

SUBJECTS = [
    "arguments",
    "combinations",
    "configurations",
    "images",
    "tables",
    "pseudo_labels",
    "priors",
    "checkpoints",
    "folders",
    "spark_labels",
    "python_calls",
]
TABLE_OF_ROWS = [(subject, row) for subject in SUBJECTS for row in import_module(f"tests.bad_inputs.{subject}").ROWS]
ERROR = "from tailmatch.datamodules.arguments import SettingsError as Error\n"


def cases() -> list[Any]:
    """Give all rows as parameters; those that fail today are expected to, until they are mended."""
    return [
        pytest.param(
            row,
            id=f"{subject}: {row.name}",
            marks=[
                *([pytest.mark.xfail(raises=AssertionError, strict=True, reason=row.fails)] if row.fails else []),
                *([] if crc32(row.name.encode()) % 4 == 0 else [pytest.mark.exhaustive]),  # a quarter, by lot
            ],
        )
        for subject, row in TABLE_OF_ROWS
    ]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder, tmp_path_factory.mktemp("beside"))
    return folder


@pytest.mark.parametrize("row", cases())
def test_bad_input(row: Row, prepared: Path, tmp_path: Path) -> None:
    check(row, prepared, tmp_path)


def test_there_are_many_rows_with_names_of_their_own() -> None:
    names = {(subject, row.name) for subject, row in TABLE_OF_ROWS}
    assert len(names) == len(TABLE_OF_ROWS) > 200


@pytest.mark.parametrize(
    "command", [FIT, f"{RESUME} --trainer.max_epochs 2", TEST, PREDICT, LABEL, EXPORT, TABLE, LABELS]
)
def test_a_command_without_a_fault_succeeds(command: str, prepared: Path, tmp_path: Path) -> None:
    outcome = run(row("right", command), copy_of(prepared, tmp_path), tmp_path / "beside")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("python", "broken"),
    [
        ("pass", "exit code 0 instead of 1"),
        ("raise KeyError('a')", "a traceback"),
        ("raise Error('b')", "the message does not say ['a']"),
        ("raise Error('a' + 4 * '\\n.')", "the message has 5 lines, more than 3"),
        ("import sys; sys.exit(1)", "no message"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "exit code -9"),
        ("while True: pass", "it hung for 1 seconds"),
        ("open('left', 'w'); raise Error('a')", "new ['left']"),
        ("open('table.csv', 'a').write(' '); raise Error('a')", "changed ['table.csv']"),
        (
            "text = open('table.csv').read(); open('table.csv', 'w').write(text); raise Error('a')",
            "changed ['table.csv']",
        ),
        ("import os; os.remove('table.csv'); raise Error('a')", "gone ['table.csv']"),
        ("import os; os.chmod('table.csv', 0); raise Error('a')", "changed ['table.csv']"),
    ],
)
def test_a_broken_promise_is_found(python: str, broken: str, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as error:
        check(call("broken", ERROR + python, "a", seconds=1), prepared, tmp_path)
    assert broken in str(error.value).splitlines()[0]
