"""Searches: trials that are cells, pruned ones, and a search that goes on."""

import datetime
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailmatch.command_line.studies import running, search
from tailmatch.command_line.studies.reading import read_study
from tailmatch.command_line.studies.record import Record
from tailmatch.command_line.studies.running import Runner
from tailmatch.command_line.studies.search import Search, trial_cell, validations
from tailmatch.command_line.studies.search_space import SearchSpace
from tailmatch.command_line.studies.study import Study
from tailmatch.datamodules.arguments import SettingsError

SPACE: dict[str, Any] = {
    "trials": 6,
    "parameters": {"model.lr": {"low": 0.01, "high": 1.0, "log": True}, "model.mu": {"values": [1, 7]}},
}

PROGRAM = """
import sys, time
from pathlib import Path
words = dict(word[2:].partition("=")[::2] for word in sys.argv if word.startswith("--"))
folder = Path(words["run_dir"])
with (folder / "calls").open("a") as calls:
    calls.write(sys.argv[1] + "\\n")
if sys.argv[1] == "fit":
    value = 1 - abs(float(words["model.lr"]) - 0.3)
    (folder / "partial").write_text(f"step,epoch,val/balanced_accuracy\\n10,1,{value / 2}\\n20,2,{value}\\n")
    (folder / "partial").rename(folder / "metrics.csv")
    if (folder.parent / "hang").exists():
        time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setattr(running, "POLL", 0.01)
    monkeypatch.setattr(running, "BUSY", 0.05)


def study(path: Path, **changes: Any) -> Study:
    file = path / "study.yaml"
    file.write_text(yaml.safe_dump({"search": {**SPACE, **changes}}))
    return read_study(file)


def runner(path: Path, found: Study, jobs: int = 2) -> tuple[Search, Runner]:
    source = Search(found, path / "out", ("--data=Digits",))
    return source, Runner("s", [], path / "out", [{}] * jobs, [sys.executable, "-c", PROGRAM], source)


def test_a_search_has_so_many_trials_and_says_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, runs = runner(tmp_path, study(tmp_path, prune=False))
    outcome = runs.run()
    assert len(outcome.done) == 6 and not outcome.failed
    said = capsys.readouterr().out
    assert said.count("[0 of 6] begins") == 2 and said.count(" of 6] done") == 6
    found = {}
    for folder in (tmp_path / "out").glob("trial_*"):
        [(_, first), (_, last)] = validations(folder, "val/balanced_accuracy")
        assert last == pytest.approx(2 * first)
        found[folder.name] = last
    best = max(found, key=lambda name: found[name])
    lines = source.summary()
    assert lines[0] == "6 of 6 trials: 6 complete"
    assert f"best val/balanced_accuracy: {found[best]:.4f} (trial {int(best[6:10])}): --model.lr=0." in lines[1]
    again, nothing = runner(tmp_path, study(tmp_path, prune=False))
    assert nothing.run().done == [] and again.summary() == lines
    longer, more = runner(tmp_path, study(tmp_path, prune=False, trials=8))
    assert len(more.run().done) == 2 and longer.summary()[0] == "8 of 8 trials: 8 complete"


def test_trials_that_were_begun_are_ended_by_whoever_comes(tmp_path: Path) -> None:
    killed = Search(study(tmp_path), tmp_path / "out", ("--data=Digits",))
    begun = killed.more(2)
    sources, runs = zip(*(runner(tmp_path, study(tmp_path, prune=False), jobs=1) for _ in range(2)), strict=True)
    threads = [threading.Thread(target=each.run) for each in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [each.summary()[0] for each in sources] == ["6 of 6 trials: 6 complete"] * 2
    assert {cell.name for cell in begun} <= {folder.name for folder in (tmp_path / "out").glob("trial_*")}
    calls = [file.read_text().split() for file in (tmp_path / "out").glob("trial_*/calls")]
    assert calls == [["fit", "test"]] * 6


def test_a_training_that_is_worse_than_the_others_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner(tmp_path, study(tmp_path, prune=False))[1].run()
    (tmp_path / "out" / "hang").touch()
    longer, more = runner(tmp_path, study(tmp_path, trials=7))
    monkeypatch.setattr(Search, "more", lambda self, free, real=Search.more: worst(self, real(self, free)))

    def worst(self: Search, cells: list[Any]) -> list[Any]:
        params = {"model.lr": 1.0, "model.mu": 1}
        return [trial_cell(self.study, self._numbers[cell.name], params, self.extra) for cell in cells]

    outcome = more.run()
    assert [cell.name for cell in outcome.done] == ["trial_0006-seed0"]
    record = Record.of(outcome.done[0], "s", tmp_path / "out")
    assert record.pruned and not record.shown and (tmp_path / "out/trial_0006-seed0/calls").read_text() == "fit\n"
    assert "1 pruned" in longer.summary()[0]


def test_a_damaged_search_is_named_and_a_torn_end_of_it_removed(tmp_path: Path) -> None:
    Search(study(tmp_path), tmp_path / "out", ()).more(1)
    file = tmp_path / "out" / "search.log"
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"op_code": 4, "wor')  # as a full disk leaves it
    Search(study(tmp_path), tmp_path / "out", ()).more(1)
    assert all(map(json.loads, file.read_text().splitlines())) and file.read_bytes().startswith(whole)
    for line in (b"junk\n", b"[]\n", b'{"op_code": 99}\n', b"{}\n", b"\xff\n"):
        file.write_bytes(line + whole)
        with pytest.raises(SettingsError, match=r"search.log is not as Optuna wrote it \(.*remove the damaged line"):
            Search(study(tmp_path), tmp_path / "out", ())


def test_a_search_of_other_parameters_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Search(study(tmp_path), tmp_path / "out", ())
    with pytest.raises(SettingsError, match="has a search of other parameters: choose another --out"):
        Search(study(tmp_path, parameters={"model.lr": {"low": 1, "high": 2}}), tmp_path / "out", ())
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingsError, match=r"needs Optuna: pip install 'tailmatch\[search\]'"):
        search.optuna_for("it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must have trials and parameters"),
        ({"trials": 3}, "must have trials and parameters, and may have metric, minimize, prune"),
        ({**SPACE, "trials": 0}, "trials is 0; it must be an integer above 0"),
        ({**SPACE, "trial": 3}, "must have trials and parameters"),
        ({**SPACE, "prune": 1}, "prune is 1; it must be true or false"),
        ({**SPACE, "metric": 1}, "metric is 1; it must be a column of metrics.csv"),
        ({**SPACE, "parameters": {}}, r"parameters is \{\}; it must name options"),
        ({**SPACE, "parameters": {"a": 3}}, "a is 3; it must be {low"),
        ({**SPACE, "parameters": {"a": {"low": 2, "high": 1}}}, "low is 2 and high 1; they must be numbers"),
        ({**SPACE, "parameters": {"a": {"low": "0", "high": 1}}}, "low is '0' and high 1"),
        ({**SPACE, "parameters": {"a": {"low": 0, "high": 1, "log": True}}}, "a logarithm needs a low above 0"),
        ({**SPACE, "parameters": {"a": {"low": 1, "high": 10**400}}}, "low is 1 and high 1000.*0; they must be"),
        ({**SPACE, "parameters": {"a": {"low": -1e308, "high": 1e308}}}, "they must be numbers"),
        ({**SPACE, "parameters": {"a": {"values": [datetime.date(2020, 1, 1)]}}}, "must be a list of plain values"),
        ({**SPACE, "parameters": {"a": {"values": []}}}, r"values is \[\]; it must be a list of plain values"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(content: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SearchSpace.read(content, "search")


def test_a_study_compares_or_searches(tmp_path: Path) -> None:
    file = tmp_path / "both.yaml"
    file.write_text(yaml.safe_dump({"search": SPACE, "axes": {"a": {"b": {}}}}))
    with pytest.raises(SettingsError, match="search and axes are both there"):
        read_study(file)
