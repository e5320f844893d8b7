"""One run, one folder: the first writer wins, and what killed ones left is taken over."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from tailmatch.command_line.run_folder import is_writer, take_run_dir
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.locks import sole_output
from tailmatch.lightning_modules.checkpoints.checkpoint_io import AtomicCheckpointIO
from tests.forks import die, exit_code, fork, meanwhile
from tests.typed import call_here as tailmatch
from tests.typed import method

FIT = ["fit", *method("Supervised"), "--data.image_size=8", "--data.steps_per_epoch=2", "--trainer.max_epochs=1",
       "--trainer.logger=false"]  # fmt: skip


class Settings(SimpleNamespace):
    """Settings of a fit, as far as its folder depends on them."""

    def __init__(self, run_dir: Path | None, **changed: Any) -> None:
        defaults = {"overwrite": False, "ckpt_path": None, "trainer": {"devices": 1, "num_nodes": 1}}
        super().__init__(run_dir=None if run_dir is None else str(run_dir), **{**defaults, **changed})

    def __getitem__(self, part: str) -> SimpleNamespace:
        return SimpleNamespace(class_path={"model": "a.FixMatch", "data": "b.Digits"}[part])


def take(run_dir: Path | None, again: bool = False, **changed: Any) -> Path:
    with ExitStack() as held:
        return take_run_dir(Settings(run_dir, **changed), again, held)


def a_run(run_dir: Path) -> dict[str, bytes]:
    """Make a run folder by hand, and return its content."""
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "config.yaml").write_text("seed_everything: 0\n")
    torch.save({"global_step": 3}, run_dir / "checkpoints" / "last.ckpt")
    (run_dir / "events").touch()
    return content(run_dir)


def content(run_dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def stay_in(run_dir: Path, ready: Path) -> None:
    with ExitStack() as held:
        take_run_dir(Settings(run_dir, ckpt_path=run_dir / "checkpoints" / "last.ckpt"), False, held)
        ready.touch()
        time.sleep(100)


@pytest.mark.parametrize("words", [[], ["--overwrite=true"], ["--ckpt_path=auto"], ["--ckpt_path=last"]])
def test_beside_a_running_run_a_second_one_is_refused_and_changes_nothing(words: list[str], tmp_path: Path) -> None:
    run_dir, ready = tmp_path / "run", tmp_path / "ready"
    a_run(run_dir)
    with meanwhile(stay_in, run_dir, ready, until=ready) as child:
        before, others = content(run_dir), sorted(tmp_path.iterdir())
        result = tailmatch(*FIT, f"--run_dir={run_dir}", *words)
        assert (content(run_dir), sorted(tmp_path.iterdir())) == (before, others)
    assert result.returncode == 1 and result.stdout == ""
    messages = [line for line in result.stderr.splitlines() if "Seed set" not in line]
    assert len(messages) == 1
    assert messages[0].startswith(f"tailmatch: error: {run_dir} is being written by process {child} on ")
    assert messages[0].endswith(": wait until it ends, or choose another --run_dir")


def test_a_killed_run_is_taken_over_and_its_remains_are_removed(tmp_path: Path) -> None:
    run_dir, ready = tmp_path / "run", tmp_path / "ready"
    before = a_run(run_dir)
    foreign = ["notes.12.partial", "predictions.csv.12.partial", "predictions.csv.label.0.partial"]
    for name in foreign:
        (run_dir / name).touch()
    with meanwhile(stay_in, run_dir, ready, until=ready):
        pass  # it is killed

    def killed_while_it_saves(path: Path) -> None:
        torch.save = lambda content, file: (file.write(b"half"), die())  # type: ignore[assignment]
        AtomicCheckpointIO().save_checkpoint({"global_step": 4}, path)

    assert exit_code(fork(killed_while_it_saves, run_dir / "checkpoints" / "last.ckpt")) == -9
    (run_dir / "config.yaml.12.partial").touch()
    assert len(content(run_dir)) == len(before) + len(foreign) + 3  # and the lock's file
    take(run_dir, ckpt_path=run_dir / "checkpoints" / "last.ckpt")
    assert content(run_dir) == before | dict.fromkeys(foreign, b"")


def test_of_runs_that_begin_together_one_wins(tmp_path: Path) -> None:
    run_dir, go = tmp_path / "run", tmp_path / "go"

    def begin() -> None:
        while not go.exists():
            pass
        with ExitStack() as held:
            take_run_dir(Settings(run_dir), False, held)
            (tmp_path / f"won-{os.getpid()}").touch()
            while len(list(tmp_path.glob("lost-*"))) < 5:
                time.sleep(0.01)

    def attempt() -> None:
        try:
            begin()
        except SettingsError:
            (tmp_path / f"lost-{os.getpid()}").touch()

    children = [fork(attempt) for _ in range(6)]
    go.touch()
    assert [exit_code(child) for child in children] == [0] * 6
    assert len(list(tmp_path.glob("won-*"))) == 1


def test_runs_without_a_name_that_begin_together_take_different_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_run(Path("runs/fixmatch-digits-2"))

    def begin() -> None:
        with ExitStack() as held:
            run_dir = take_run_dir(Settings(None), False, held)
            (tmp_path / run_dir.name).touch()
            while len(list(tmp_path.glob("fixmatch-*"))) < 5:
                time.sleep(0.01)
            os.environ["LOCAL_RANK"] = "1"  # a process that it starts goes where it is
            assert take(None) == run_dir

    children = [fork(begin) for _ in range(5)]
    assert [exit_code(child) for child in children] == [0] * 5
    taken = ["fixmatch-digits", *(f"fixmatch-digits-{number}" for number in (3, 4, 5, 6))]
    assert sorted(path.name for path in tmp_path.glob("fixmatch-*")) == taken


def test_an_old_run_is_moved_aside_whole(tmp_path: Path) -> None:
    before = a_run(tmp_path / "disk" / "run")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "run")
    for place in ("run-old", "run-old-2"):
        take(tmp_path / "link", overwrite=True)
        assert content(tmp_path / "disk" / place) == before  # beside the folder, not beside the link
        assert content(tmp_path / "disk" / "run") == {}
        a_run(tmp_path / "disk" / "run")


def test_a_checkpoint_of_another_run_does_not_open_the_folder_of_one(tmp_path: Path) -> None:
    a_run(tmp_path / "one")
    before = a_run(tmp_path / "two")
    with pytest.raises(SettingsError, match="two holds a run: resume it with --ckpt_path last, choose another"):
        take(tmp_path / "two", ckpt_path=tmp_path / "one" / "checkpoints" / "last.ckpt")
    assert content(tmp_path / "two") == before


@pytest.mark.parametrize(
    ("variables", "trainer", "first"),
    [
        ({}, {}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "RANK": "0"}, {}, True),
        ({"LOCAL_RANK": "1"}, {}, False),
        ({"NODE_RANK": "1"}, {}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, {}, False),
        ({"SLURM_PROCID": "1"}, {"devices": 2}, False),
        ({"SLURM_PROCID": "1"}, {"devices": "auto", "num_nodes": 2}, False),
        ({"SLURM_PROCID": "0"}, {"devices": 2}, True),
        ({"SLURM_PROCID": "1"}, {}, True),  # each task is a run of its own
    ],
)
def test_the_first_process_alone_writes(
    variables: dict[str, str], trainer: dict[str, Any], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_writer({"devices": 1, "num_nodes": 1, **trainer}) == first


# Whole commands


def hold_output(path: Path, ready: Path) -> None:
    with sole_output(path):
        ready.touch()
        time.sleep(100)


def test_auto_begins_then_continues_and_then_says_that_the_run_has_finished(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()  # stopped before the first checkpoint
    words = [*FIT, f"--run_dir={tmp_path}", "--ckpt_path=auto", "--overwrite=false"]
    assert tailmatch(*words).returncode == 0
    first = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert first["global_step"] == 2
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    finished = tailmatch(*words)
    assert finished.returncode == 0
    assert "the run had finished at step 2: nothing was left to train" in finished.stdout
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before
    longer = tailmatch("fit", f"--config={tmp_path}/config.yaml", *words[1:], "--trainer.max_epochs=2")
    assert longer.returncode == 0 and "had finished" not in longer.stdout
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4
    assert not (tmp_path / "run.lock").exists()


def test_outputs_have_one_writer_and_a_running_run_can_be_evaluated(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert tailmatch(*FIT, f"--run_dir={run_dir}", "--overwrite=true").returncode == 0
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["overwrite"] is False
    last = ["--ckpt_path=last", f"--run_dir={run_dir}"]
    table = tmp_path / "new" / "table.csv"
    export = ["export", str(run_dir / "checkpoints" / "last.ckpt"), str(tmp_path / "net.pt2")]
    commands = {
        run_dir / "test_metrics.json": ["test", *last],
        table: ["predict", *last, f"--output={table}", "--data.predict_set=test"],
        tmp_path / "net.pt2": export,
        run_dir / "report.html": ["report", str(run_dir)],
    }
    for number, (output, words) in enumerate(commands.items()):
        ready = tmp_path / f"ready-{number}"
        output.parent.mkdir(exist_ok=True)
        left = output.with_name(f"{output.name}.12.partial")
        with meanwhile(hold_output, output, ready, until=ready) as child:
            left.touch()
            left.with_name(f"{output.name}.label.0.partial").touch()  # a shard of a prediction
            refused = tailmatch(*words)
            assert refused.returncode == 1 and not output.exists() and left.exists()
            assert f"{output} is being written by process {child} on " in refused.stderr
            assert refused.stderr.endswith(": wait until it ends, or name another output\n")
    running = tmp_path / "running"
    with meanwhile(stay_in, run_dir, running, until=running):
        for output, words in list(commands.items())[:2]:
            assert tailmatch(*words).returncode == 0, words
            assert output.exists() and not list(output.parent.glob(f"{output.name}.*"))


def test_a_command_that_fails_leaves_no_lock_and_no_folder(tmp_path: Path) -> None:
    result = tailmatch(*FIT, f"--run_dir={tmp_path}/deep/run", "--model.pretrained=nowhere.ckpt")
    assert result.returncode == 1 and "'nowhere.ckpt' does not exist" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_may_have_no_checkpoints_and_no_logs(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    result = tailmatch(*FIT, f"--run_dir={run_dir}", "--trainer.enable_checkpointing=false", "--trainer.logger=false")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in run_dir.iterdir()) == ["config.yaml", "run.json"]
    assert result.stdout.splitlines()[-1] == f"run folder: {run_dir}"
