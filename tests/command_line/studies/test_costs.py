"""What `--dry-run` says: the numbers of the cells, and the time of each setting."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailmatch.command_line import step_times, sweep
from tailmatch.datamodules.arguments import SettingsError

STUDENT: dict[str, Any] = {"needs": {"t": {"method": "teacher"}}, "options": {"labels": "${t}/labels.npz"}}
LEVELS = {"teacher": {}, "student": STUDENT, "a": {"options": {"bad": 1}}, "b": {"options": {"bad": 1}}}


def test_a_plan_numbers_the_cells_as_cell_takes_them_and_says_what_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def times(words: list[str]) -> step_times.StepTimes:
        if "--bad=1" in words:
            raise SettingsError("bad is 1")
        for word in words:
            if word.startswith("--labels="):
                raise SettingsError(f"no file {word}")
        return step_times.StepTimes(step=0.5, validation=0, steps=10)

    monkeypatch.setattr(step_times, "time_steps", times)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"axes": {"method": LEVELS}, "seeds": 2}, sort_keys=False))
    words = [str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), "--dry-run", "--jobs", "2"]
    sweep.main([*words, "--where", "method=student,a,b"])
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert said[1:5] == [
        "to run     teacher, seed 0",
        "0  to run     student, seed 0 (needs teacher-seed0)",
        "to run     teacher, seed 1",
        "1  to run     student, seed 1 (needs teacher-seed1)",
    ]
    assert said[-5:] == [
        "teacher: 2 x 5 s: 10 steps, 2 a second",
        "student: 2 x ?: known when teacher-seed0 is done",
        "a: 2 x ?: bad is 1",
        "b: 2 x ?: as above",
        "in all: 10 s, one after the other, and 6 cells of which the time is not known; 2 run at a time",
    ]


def test_a_search_takes_as_long_as_its_trials_with_the_first_of_all_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed: list[str] = []

    def times(words: list[str]) -> step_times.StepTimes:
        typed.extend(words)
        return step_times.StepTimes(step=0.5, validation=0, steps=10)

    monkeypatch.setattr(step_times, "time_steps", times)
    parameters = {"model.a": {"low": 2, "high": 3}, "model.b": {"values": ["x", "y"]}}
    study = {"title": "Two", "search": {"trials": 4, "parameters": parameters}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    out = tmp_path / "out"
    sweep.main([str(tmp_path / "study.yaml"), "--out", str(out), "--dry-run", "--jobs", "1", "--data.root=/data"])
    assert {"--model.a=2", "--model.b=x", "--data.root=/data"} <= set(typed)
    assert capsys.readouterr().out.splitlines() == [
        f"Two: a search of 4 trials in {out}, for the best val/balanced_accuracy",
        "  one with model.a 2, model.b x: 5 s: 10 steps, 2 a second",
        "in all: 20 s, one after the other, less what ends early; 1 run at a time",
    ]
    assert not out.exists()
