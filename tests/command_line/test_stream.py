import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from tailmatch.spark.stream_settings import StreamSettings
from tests.typed import Result, call_here

NEEDED = ["--input=in", "--model=best.ckpt", "--reference=reference.npz", "--output=out"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, streams: Callable[..., object], *words: str) -> Result:
    """Run the command with another function in place of the stream, so that it needs no Spark."""
    pretended = types.ModuleType("tailmatch.spark.stream")
    pretended.stream = streams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tailmatch.spark.stream", pretended)
    monkeypatch.setattr("tailmatch.command_line.stream.check_installed", lambda: None)
    return call_here("stream", *NEEDED, *words)


@pytest.mark.parametrize(
    ("words", "alarms", "code"), [([], 2, 0), (["--until_drift=true"], 2, 3), (["--until_drift=true"], 0, 0)]
)
def test_drift_is_an_exit_code_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, words: list[str], alarms: int, code: int
) -> None:
    def streams(settings: StreamSettings, stop: Callable[[], bool]) -> object:
        assert settings.until_drift is bool(words) and settings.window == "1m" and not stop()
        return types.SimpleNamespace(images=1234, alarms=alarms)

    done = run(monkeypatch, streams, *words)
    assert (done.returncode, done.stdout) == (code, "1,234 images are labeled: out\n")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_lets_the_micro_batch_end_and_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    def streams(settings: StreamSettings, stop: Callable[[], bool]) -> object:
        os.kill(os.getpid(), signal.Signals[name])
        assert stop()
        return types.SimpleNamespace(images=7, alarms=1)

    done = run(monkeypatch, streams, "--until_drift=true")
    assert done.returncode == code and "7 images are labeled" in done.stdout
    assert done.stderr == f"stopped by {name}; the same command continues\n"


def test_a_wrong_setting_is_one_message_before_the_work(tmp_path: Path) -> None:
    done = call_here("stream", *NEEDED[1:], f"--input={tmp_path}/none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tailmatch: error: there is no folder {tmp_path}/none, in which images would arrive\n"
