"""Which checkpoint a command line names, and what is said of damaged and missing ones."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tailmatch.command_line.resume import resolve_checkpoint
from tailmatch.command_line.typed import Typed
from tailmatch.datamodules.arguments import SettingsError


def resolved(*words: str) -> Path | None:
    return resolve_checkpoint(Typed.read(words))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with checkpoints of these steps; the newest file is not the newest checkpoint."""
    folder = tmp_path / "my run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder.parent / "config.yaml").touch()
    for name, step in (("last", 30), ("epoch-0001", 20), ("epoch-0000", 10), ("best", 10)):
        torch.save({"global_step": step, "state_dict": {"w": torch.zeros(1000)}}, folder / f"{name}.ckpt")
    torch.save({"w": torch.zeros(1)}, folder / "weights.ckpt")  # of another tool
    return folder.parent


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def remove(run: Path, names: Sequence[str]) -> None:
    for name in names:
        (run / "checkpoints" / f"{name}.ckpt").unlink()


def test_auto_is_the_last_checkpoint_and_without_it_the_newest(run: Path) -> None:
    words = ["fit", "--run_dir", str(run), "--ckpt_path", "auto"]
    assert resolved(*words) == run / "checkpoints" / "last.ckpt"
    remove(run, ["last"])
    assert resolved(*words) == run / "checkpoints" / "epoch-0001.ckpt"
    remove(run, ["epoch-0000", "epoch-0001", "best", "weights"])
    assert resolved(*words) is None


def test_auto_leaves_a_damaged_checkpoint_with_a_warning(run: Path) -> None:
    for name in ("last", "epoch-0001"):
        damage(run / "checkpoints" / f"{name}.ckpt")
    with pytest.warns(UserWarning, match=r"last\.ckpt.*; the run continues from .*best\.ckpt, step 10$"):
        assert resolved("fit", f"--run_dir={run}", "--ckpt_path=auto") == run / "checkpoints" / "best.ckpt"


def test_auto_does_not_begin_anew_where_all_is_damaged(run: Path) -> None:
    for file in (run / "checkpoints").iterdir():
        damage(file)
    with pytest.raises(SettingsError, match=r"last\.ckpt.*; .*checkpoints has no other checkpoint to continue from"):
        resolved("fit", f"--run_dir={run}", "--ckpt_path=auto")


@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_a_damaged_checkpoint_names_the_newest_good_one_and_the_command(run: Path, subcommand: str) -> None:
    folder = run / "checkpoints"
    damage(folder / "last.ckpt")
    with pytest.raises(SettingsError, match=r"last\.ckpt") as raised:
        resolved(subcommand, f"--run_dir={run}", "--ckpt_path=last")
    last_line = str(raised.value).splitlines()[-1]
    start, _, command = last_line.partition(": ")
    assert start == f"  The newest undamaged one in its folder is {folder / 'epoch-0001.ckpt'}, step 20"
    assert shlex.split(command) == [
        "tailmatch", subcommand, "--run_dir", str(run), "--ckpt_path", str(folder / "epoch-0001.ckpt")
    ]  # fmt: skip
    assert resolved(*shlex.split(command)[1:]) == folder / "epoch-0001.ckpt"
    with pytest.raises(SettingsError, match=r"epoch-0001\.ckpt, step 20$"):  # the user has not said that it is theirs
        resolved(subcommand, f"--ckpt_path={folder / 'last.ckpt'}")


def test_a_run_without_a_checkpoint_says_how_to_begin_it_again(run: Path) -> None:
    remove(run, ["last", "best", "epoch-0000", "epoch-0001", "weights"])
    for name in ("last", "best"):
        with pytest.raises(SettingsError, match="no checkpoint .* the run was stopped before its first one") as raised:
            resolved("fit", f"--run_dir={run}", f"--ckpt_path={name}")
        command = str(raised.value).partition("To start it again: tailmatch ")[2]
        assert shlex.split(command) == [
            "fit", "--config", str(run / "config.yaml"), "--run_dir", str(run), "--ckpt_path", "auto"
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "--ckpt_path=auto"], "--ckpt_path auto needs the run's folder: add --run_dir"),
        (["test", "--ckpt_path=auto", "--run_dir=r"], "--ckpt_path auto is for fit, which continues or begins a run"),
        (["predict", "--ckpt_path=auto", "--run_dir=r"], "--ckpt_path auto is for fit, which continues or begins"),
        (["fit", "--ckpt_path=auto", "--run_dir=r", "--overwrite=true"], "auto continues the old: leave one out"),
        (["fit", "--ckpt_path=last", "--run_dir=r", "--overwrite=true"], "last continues the old: leave one out"),
    ],
)
def test_what_cannot_be_asked_for_is_one_message(words: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolved(*words)
