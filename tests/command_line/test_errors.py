"""Which errors are a message, and which keep their traceback."""

import errno
import os
from argparse import ArgumentError
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric.utilities.exceptions import MisconfigurationException

from tailmatch.callbacks import LastEvaluations
from tailmatch.command_line import errors
from tailmatch.command_line.errors import message_for_user, request_for_report
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules import FixMatch
from tests.typed import call_here as tailmatch

FILE_ABOVE = "a part of this path is a file, and no folder"
FIT = ["fit", "--config=demo.yaml", "--data.image_size=8"]


def chained(error: BaseException, cause: BaseException | None = None, context: BaseException | None = None) -> Any:
    error.__cause__, error.__context__ = cause, context
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SettingsError("threshold is 7"), "threshold is 7"),
        (MissingFileError("no checkpoint a"), "no checkpoint a"),
        (chained(ArgumentError(None, "Parser key"), context=SettingsError("wrapped")), "wrapped"),
        (chained(RuntimeError("from"), cause=SettingsError("the cause")), "the cause"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "cannot read or write a: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device", b"runs/a"), "cannot write runs/a: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write: No space left on device"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a/b"), f"cannot read or write a/b: {FILE_ABOVE}"),
        (chained(RuntimeError("x"), cause=OSError(errno.EIO, "I/O error", "a")), "cannot read or write a: I/O error"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), None),  # of no file
        (FileNotFoundError("no errno: raised by hand"), None),
        (ValueError("embedded null byte"), "a path has a null character in it, which no file name can have"),
        (ValueError("zip() argument 2 is longer than argument 1"), None),
        (MisconfigurationException("no supported gpu backend found"), "no supported gpu backend found"),
        (chained(MisconfigurationException("from"), cause=SettingsError("the cause")), "the cause"),
        (chained(ValueError("a slip"), context=SettingsError("that was being handled")), None),
    ],
    ids=repr,
)
def test_the_message_for_a_user(error: BaseException, message: str | None) -> None:
    assert message_for_user(error) == message


def test_a_setting_is_one_line(tmp_path: Path) -> None:
    result = tailmatch(*FIT, f"--run_dir={tmp_path}", "--model.threshold=7")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "tailmatch: error: threshold is 7.0; it must be in [0, 1]\n"


def test_a_setting_of_a_callback_is_one_line(tmp_path: Path) -> None:
    result = tailmatch(*FIT, f"--run_dir={tmp_path}", "--trainer.callbacks.alpha=-1")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("tailmatch: error: alpha is -1")


def test_a_value_of_a_callback_is_the_only_message() -> None:
    result = tailmatch(*FIT, "--trainer.callbacks+=LogitAdjustment", "--trainer.callbacks.tau=abc")
    assert result.returncode == 2 and "Expected a <class 'float'>. Got value: abc" in result.stderr
    assert "is not accepted" not in result.stderr and "Did you mean" not in result.stderr


def test_a_run_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = tailmatch(*FIT, f"--run_dir={tmp_path}/file")
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("tailmatch: error: run_dir is ")


def slip(*args: Any, **kwargs: Any) -> None:
    list(zip([1], [1, 2], strict=True))


@pytest.mark.parametrize("where", [(LastEvaluations, "__init__"), (FixMatch, "training_step"), (FixMatch, "setup")])
def test_a_slip_of_ours_keeps_its_traceback(
    where: tuple[type, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*where, slip)
    result = tailmatch(*FIT, f"--run_dir={tmp_path}", "--trainer.enable_progress_bar=false")
    assert result.returncode == 1 and "Traceback (most recent call last):" in result.stderr
    assert "in slip\n" in result.stderr and "ValueError: zip() argument 2 is longer than argument 1" in result.stderr
    end = result.stderr.splitlines()[-1]
    assert end.startswith("tailmatch: error: unexpected ValueError.") and "please report it with the text above" in end


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = tailmatch(*FIT, f"--run_dir={tmp_path / 'run'}")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    end = result.stderr.splitlines()[-1]
    assert end == f"tailmatch: error: cannot read or write {tmp_path / 'run'}: Permission denied"


def test_a_report_goes_to_the_projects_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Message()
    monkeypatch.setattr(errors, "metadata", lambda name: package)
    assert request_for_report() == "please report it with the text above"
    package["Project-URL"] = "Source, https://example.org/tailmatch"
    package["Project-URL"] = "Issues, https://example.org/tailmatch/issues"
    assert request_for_report().endswith("with the text above: https://example.org/tailmatch/issues")


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as the system says it of an open file, without its name


@pytest.mark.parametrize(
    ("target", "names"),
    [("torch.save", "checkpoints/best.ckpt"), ("torch.utils.tensorboard.SummaryWriter.add_image", "")],
    ids=["checkpoint", "log"],
)
def test_a_full_disk_names_what_was_written(
    target: str, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, full_disk)
    result = tailmatch(*FIT, f"--run_dir={tmp_path}", "--trainer.max_epochs=4", "--data.steps_per_epoch=1")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    end = result.stderr.splitlines()[-1]
    assert end == f"tailmatch: error: cannot write {tmp_path / names}: No space left on device"
    assert not list(tmp_path.rglob("*.partial"))


def test_a_configuration_is_not_copied_to_a_path_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere/a.yaml")
    result = tailmatch("configs", "copy", "demo.yaml", f"{tmp_path}/a.yaml")
    assert result.returncode == 2 and f"{tmp_path}/a.yaml exists" in result.stderr
    result = tailmatch("configs", "copy", "demo.yaml", f"{tmp_path}/{'x' * 300}")
    assert (
        result.returncode == 1 and result.stderr.endswith("File name too long\n") and "Traceback" not in result.stderr
    )
