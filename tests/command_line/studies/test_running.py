"""Cells that are run: in parallel, once, by any number of sweeps, whatever fails or is killed."""

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailmatch.command_line.signals import Stop
from tailmatch.command_line.studies import running, running_cell
from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.cells import cells_of
from tailmatch.command_line.studies.outcomes import Outcome
from tailmatch.command_line.studies.reading import read_study
from tailmatch.command_line.studies.record import Record
from tailmatch.command_line.studies.running import Runner
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.locks import sole_writer

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
folder = Path(next(word for word in sys.argv if word.startswith("--run_dir=")).partition("=")[2])
with (folder / "calls").open("a") as calls:
    calls.write(sys.argv[1] + "\\n")
count = len((folder / "calls").read_text().split())
level = folder.name.split("-")[0]
if level == "bad" and not (folder.parent / "mended").exists():
    print("tailmatch: error: threshold is 7")
    sys.exit(1)
if level == "killed" and count == 1 or level == "hopeless":
    os.kill(os.getpid(), signal.SIGKILL)
if level == "slow" and count == 1:
    signal.signal(signal.SIGTERM, lambda *_: ((folder / "saved").touch(), sys.exit(143)))
    (folder / "ready").touch()
    time.sleep(60)
if sys.argv[1] == "test":
    (folder / "test_metrics.json").write_text('{"metrics": {"balanced_accuracy": 0.5}}')
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "POLL", 0.01)
    monkeypatch.setattr(running, "BUSY", 0.05)


def cells(path: Path, levels: dict[str, Any], seeds: int = 1) -> list[Cell]:
    file = path / "study.yaml"
    file.write_text(yaml.safe_dump({"axes": {"a": levels}, "seeds": seeds}, sort_keys=False))
    return cells_of(read_study(file))


def runner(path: Path, found: Sequence[Cell], jobs: int = 2) -> Runner:
    return Runner(
        "study", found, path / "out", [{"PLACE": str(place)} for place in range(jobs)], [sys.executable, "-c", PROGRAM]
    )


def calls(path: Path, cell: Cell) -> list[str]:
    file = path / "out" / cell.name / "calls"
    return file.read_text().split() if file.exists() else []


def names(outcome: Outcome) -> tuple[set[str], set[str]]:
    return {cell.name for cell in outcome.done}, set(outcome.failed)


def test_a_cell_that_fails_stops_only_those_that_need_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = {
        "bad": {},
        "needs bad": {"needs": {"n": {"a": "bad"}}},
        "good": {},
        "last": {"needs": {"n": {"a": "good"}}},
    }
    found = cells(tmp_path, levels)
    outcome = runner(tmp_path, found).run()
    assert names(outcome) == ({"good-seed0", "last-seed0"}, {"bad-seed0", "needs_bad-seed0"})
    assert outcome.failed["bad-seed0"][1] == "threshold is 7"
    assert outcome.failures()[0] == "failed: bad, seed 0: threshold is 7"
    assert outcome.failed["needs_bad-seed0"][1] == "needs bad, seed 0, which has failed"
    assert [calls(tmp_path, cell) for cell in found] == [["fit"], [], ["fit", "test"], ["fit", "test"]]
    assert "done: good, seed 0: balanced accuracy 50.0 %, 0 s; about 0 s left" in capsys.readouterr().out
    (tmp_path / "out" / "mended").touch()
    again = runner(tmp_path, found).run()
    assert len(again.done) == 4 and not again.failed
    assert [calls(tmp_path, cell) for cell in found[:3]] == [["fit", "fit", "test"], ["fit", "test"], ["fit", "test"]]


def test_what_is_killed_is_continued_once(tmp_path: Path) -> None:
    found = cells(tmp_path, {"killed": {}, "hopeless": {}})
    outcome = runner(tmp_path, found).run()
    assert names(outcome) == ({"killed-seed0"}, {"hopeless-seed0"})
    assert [calls(tmp_path, cell) for cell in found] == [["fit", "fit", "test"], ["fit", "fit"]]
    assert outcome.failed["hopeless-seed0"][1].startswith("killed by signal 9")


def test_sweeps_that_share_a_folder_share_the_cells(tmp_path: Path) -> None:
    found = cells(tmp_path, {"good": {}, "better": {}}, seeds=3)
    runners = [runner(tmp_path, found) for _ in range(2)]
    threads = [threading.Thread(target=each.run) for each in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(each.outcome.done) for each in runners] == [6, 6]
    assert [calls(tmp_path, cell) for cell in found] == [["fit", "test"]] * 6


def test_a_failure_in_another_sweep_is_not_tried_again_by_this_one(tmp_path: Path) -> None:
    found = cells(tmp_path, {"bad": {}})
    waits = runner(tmp_path, found)
    time.sleep(0.01)
    runner(tmp_path, found).run()
    assert list(waits.run().failed) == ["bad-seed0"] and calls(tmp_path, found[0]) == ["fit"]


def test_a_command_that_outlives_its_sweep_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = cells(tmp_path, {"good": {}})
    runs = threading.Thread(target=runner(tmp_path, found).run)
    with sole_writer(tmp_path / "out" / "good-seed0" / "labels.npz.lock", "it", ""):
        runs.start()
        time.sleep(0.3)
        assert calls(tmp_path, found[0]) == []
    runs.join(60)
    assert calls(tmp_path, found[0]) == ["fit", "test"] and capsys.readouterr().out.count("waiting: ") == 1


def test_a_command_that_meets_one_that_has_outlived_its_sweep_is_no_failure(tmp_path: Path) -> None:
    """The other one had not yet taken its lock when this sweep looked."""
    [cell] = cells(tmp_path, {"bad": {}})
    runs = runner(tmp_path, [cell])
    runs._try(cell)
    with sole_writer(tmp_path / "out" / "bad-seed0" / "run.lock", "it", ""):
        while runs._running:
            runs._look_after()
        assert cell.name in runs._waiting and not runs.outcome.failed
    (tmp_path / "out" / "mended").touch()
    assert len(runs.run().done) == 1 and calls(tmp_path, cell) == ["fit", "fit", "test"]


def test_a_stop_lets_the_trainings_save_their_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cells(tmp_path, {"slow": {}, "good": {}})
    ready = tmp_path / "out" / "slow-seed0" / "ready"

    def sleep(seconds: float, real: Any = time.sleep) -> None:
        if ready.exists():
            raise Stop(2)
        real(seconds)

    with monkeypatch.context() as context, pytest.raises(Stop) as stop:
        context.setattr(running.time, "sleep", sleep)
        runner(tmp_path, found, jobs=1).run()
    assert str(stop.value) == "stopped by SIGINT: the same command continues"
    assert (tmp_path / "out" / "slow-seed0" / "saved").exists()
    record = json.loads((tmp_path / "out" / "slow-seed0" / "cell.json").read_text())
    assert record["failed"] is None and record["done"] == [] and record["seconds"] > 0
    assert len(runner(tmp_path, found).run().done) == 2
    assert calls(tmp_path, found[0]) == ["fit", "fit", "test"]


def test_a_signal_waits_until_what_it_stops_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal between the start of a process and its note would leave the process alone."""
    found = cells(tmp_path, {"slow": {}})
    ready = tmp_path / "out" / "slow-seed0" / "ready"

    def start(*args: Any, real: Any = running_cell.subprocess.Popen, **options: Any) -> Any:
        process = real(*args, **options)
        while not ready.exists():
            time.sleep(0.01)
        running.SIGNALS.handle(15)
        return process

    monkeypatch.setattr(running.SIGNALS, "received", None)
    with running.SIGNALS.handled(), pytest.raises(Stop):
        monkeypatch.setattr(running_cell.subprocess, "Popen", start)
        runner(tmp_path, found).run()
    assert (tmp_path / "out" / "slow-seed0" / "saved").exists()


def test_a_configuration_that_changes_during_a_sweep_is_not_mixed_in(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("trainer: {max_epochs: 1}")
    found = cells(tmp_path, {"good": {"configs": str(config)}, "other": {}})
    config.write_text("trainer: {max_epochs: 2}")
    outcome = runner(tmp_path, found).run()
    assert names(outcome) == ({"other-seed0"}, {"good-seed0"}) and calls(tmp_path, found[0]) == []
    assert "mine.yaml has changed since this sweep began" in outcome.failed["good-seed0"][1]


def test_a_new_title_reaches_what_is_done(tmp_path: Path) -> None:
    [cell] = cells(tmp_path, {"good": {}})
    runner(tmp_path, [cell]).run()
    [hidden] = cells(tmp_path, {"good": {"shown": False}})
    Runner("Another title", [hidden], tmp_path / "out", [{}]).run()
    record = Record.read(tmp_path / "out" / cell.name)
    assert record is not None and record.study == "Another title" and not record.shown
    assert calls(tmp_path, cell) == ["fit", "test"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    [cell] = cells(tmp_path, {"good": {}})
    folder = tmp_path / "out" / cell.name
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    with pytest.raises(SettingsError, match="holds a run that no sweep has begun"):
        Record.of(cell, "study", tmp_path / "out")
    Record.of(cell, "study", tmp_path).write(folder)
    [other] = cells(tmp_path, {"good": {"trainer": {"max_epochs": 3}}})
    changed = r" have now for good, seed 0 \(trainer.max_epochs was not set and is 3\): choose another --out"
    with pytest.raises(SettingsError, match=f"was run with other settings than the study .*{changed}"):
        Record.of(other, "study", tmp_path / "out")
    whole = json.loads((folder / "cell.json").read_text())
    spoiled = [
        {"settings": 1},
        {"done": 1},
        {"seconds": "1"},
        {"failed": "now"},
        {"failed": {"time": None}},
    ]
    damaged = [json.dumps(whole | each) for each in spoiled]
    for text in ("{", "[]", '{"a": 1}', "[" * 100_000, *damaged):
        (folder / "cell.json").write_text(text)
        with pytest.raises(SettingsError, match="is not as sweep wrote it"):
            Record.of(cell, "study", tmp_path / "out")


def test_a_command_may_change_until_it_is_done(tmp_path: Path) -> None:
    [cell] = cells(tmp_path, {"good": {"commands": ["fit", "test --ckpt_path bst"]}})
    record = Record.of(cell, "study", tmp_path / "out")
    record.done = ["fit"]
    record.write(tmp_path / "out" / cell.name)
    [mended] = cells(tmp_path, {"good": {"commands": ["fit", "test --ckpt_path best"]}})
    found = Record.of(mended, "study", tmp_path / "out")
    assert found.done == ["fit"] and found.settings["commands"] == "fit; test --ckpt_path best"
    [another] = cells(tmp_path, {"good": {"commands": ["fit --trainer.max_steps 3", "test --ckpt_path best"]}})
    with pytest.raises(SettingsError, match="commands was fit; test --ckpt_path bst and is fit --trainer.max_steps 3"):
        Record.of(another, "study", tmp_path / "out")
    found.done = list(mended.commands)
    found.write(tmp_path / "out" / cell.name)
    with pytest.raises(SettingsError, match="has done fit; test --ckpt_path best, and the commands of good, "):
        Record.of(cell, "study", tmp_path / "out")
