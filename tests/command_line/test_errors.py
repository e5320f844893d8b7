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

FILE_ABOVE = "a part of this path is a file, not a folder"
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
    assert result.returncode == 2 and "--trainer.callbacks.tau: it must be a number, and is abc" in result.stderr
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint.monitors=[val/balanced_acuracy]"], "checkpoint.monitors has 'val/balanced_acuracy'"),
        (["--checkpoint.monitors=[val/top1,test/top1]"], "each metric may be listed once"),
        (["--seed_everything=-4"], "seed_everything is -4; it must be in [0, 4294967295]"),
        (["--trainer.accelerator=cuda9"], "the trainer cannot be made: You selected an invalid accelerator name"),
        (["--config={trainer: null}"], "trainer is null; leave it out, or give its settings"),
    ],
)
def test_what_lightning_refuses_is_said_before_the_training(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FixMatch, "training_step", slip)  # must not be reached
    result = tailmatch(*FIT, f"--run_dir={tmp_path}", *options)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert message in result.stderr[result.stderr.rindex("tailmatch: error:") :]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--model.network.dept=20"],
            "--model.network: Option 'dept' is not accepted by CifarResNet\n  Did you mean: depth",
        ),
        (["--model.network.depth=abc"], "--model.network.depth: it must be a whole number, and is abc"),
        (["--trainer.max_epochs=abc"], "--trainer.max_epochs: it must be a whole number, and is abc"),
        (["--checkpoint.mode=maxx"], "--checkpoint.mode: it must be one of 'min', 'max', and is maxx"),
        (["--model=Digits"], "--model: Digits is a class of this package, and none for this option"),
        (["--trainer.callbacks=DARPP"], "--trainer.callbacks: There is no class DARPP\n  Did you mean: DARP?"),
        (["--model=ClassifierRetraining"], "--model: ClassifierRetraining requires checkpoint"),
        (["--config={model: {class_path: null}}"], "(given: {'class_path': None})"),
        (["--model=broken_here.Model"], "--model: broken_here cannot be imported: RuntimeError: boom ("),
        (["--trainer.callbacks=broken_here.Callback"], "broken_here.py, line 2)"),
        (["--model=own_here.Mine"], "--model: own_here.Mine is not a subclass of ImageClassifier"),
    ],
)
def test_a_refused_option_is_named_with_its_value(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_here.py").write_text("import os\nraise RuntimeError('boom')\n")
    (tmp_path / "own_here.py").write_text("class Mine: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = tailmatch(*FIT, *options)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    end = result.stderr[result.stderr.rindex("tailmatch: error:") :]
    assert message in end and len(end.splitlines()) <= 3
