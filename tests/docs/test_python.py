"""The code of the documentation runs, with fewer steps."""

import re
from pathlib import Path

import pytest

from tests.documented_commands import shortened

PYTHON = Path(__file__).parent.parent.parent / "docs" / "python.md"


def test_the_page_about_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PYTHON.read_text(), flags=re.DOTALL))
    code = shortened(code, steps_per_epoch=2, max_epochs=1, warmup_epochs=0)
    names: dict[str, object] = {}
    exec(compile(code, str(PYTHON), "exec"), names)
    assert (tmp_path / "digits.pt2").stat().st_size and "test/balanced_accuracy" in names["metrics"]  # type: ignore[operator]
