"""Test that a signal ends every command with its exit code, and that a fit goes on afterwards as if there was none."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tailmatch.callbacks import DARP, EarlyLearningCurves
from tailmatch.callbacks.remedies import pseudo_label_generator
from tailmatch.command_line import signals
from tailmatch.command_line.signals import SAME_REQUEST, Stop, StopSignals, requeue
from tailmatch.datamodules.files import image_cache
from tailmatch.lightning_modules import ImageClassifier
from tests.contract import assert_same_training, saved
from tests.typed import call, call_here, tailmatch

SEND = "--trainer.callbacks+=tests.signaling.SendSignal"
DATA = [
    "--data=Digits", "--data.image_size=8", "--data.labeled_batch_size=6", "--data.unlabeled_ratio=2",
    "--data.steps_per_epoch=4", "--data.eval_batch_size=100",
    "--data.class_counts=ListedCounts", f"--data.class_counts.labeled={[4] * 10}",
    f"--data.class_counts.unlabeled={[6] * 10}",
]  # fmt: skip
RUN = [
    "--model.network=CifarResNet", "--model.network.depth=8", "--trainer.max_epochs=3",
    "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=3",
]  # fmt: skip
DARP_ARGUMENTS = ["--trainer.callbacks+=DARP", "--trainer.callbacks.warmup_epochs=1"]
FIXMATCH = ["fit", *DATA, "--model=FixMatch", *RUN, *DARP_ARGUMENTS, "--trainer.callbacks+=EarlyLearningCurves"]
SELF_TRAINING = [
    "fit", *DATA, "--model=SelfTraining", *RUN,
    "--trainer.callbacks+=PseudoLabelGenerator", "--trainer.callbacks.every_n_epochs=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    tailmatch(*FIXMATCH, f"--run_dir={folder}")
    return folder


def send_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int = 1) -> None:
    """Send SIGTERM to this process in a given call of a function, counted from 1."""
    function, calls = getattr(owner, name), []

    def sending(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.5)  # the main thread handles it when it has its turn
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, sending)


def continued(run_dir: Path, whole: Path) -> None:
    """Continue a run; it ends with the bits of the whole one, and TensorBoard shows the same."""
    tailmatch("fit", f"--run_dir={run_dir}", "--ckpt_path=last")
    checkpoints = [saved(folder / "checkpoints") for folder in (whole, run_dir)]
    assert_same_training(*checkpoints, remedy="DARP", reports=["EarlyLearningCurves"])
    assert scalars(run_dir) == scalars(whole)


def scalars(folder: Path) -> set[tuple[str, int, float]]:
    """Read the numbers that TensorBoard shows of a run, and assert that it shows each once."""
    events = EventAccumulator(str(folder), {"scalars": 0})
    events.Reload()
    found = [(tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag) if tag != "epoch"]
    assert len(found) == len({place[:2] for place in found})
    return set(found)


@pytest.mark.parametrize(
    ("hook", "batch", "step", "name"),
    [
        ("on_before_optimizer_step", 0, 5, "SIGTERM"),  # in mid-epoch
        ("on_before_optimizer_step", 1, 6, "SIGINT"),  # whose numbers are logged
        ("on_before_optimizer_step", 3, 8, "SIGTERM"),  # in the last step of an epoch, which is validated later
        ("on_validation_batch_start", 0, 8, "SIGINT"),
        ("on_validation_batch_start", 1, 8, "SIGTERM"),
    ],
)
def test_a_fit_is_saved_where_a_signal_stops_it(
    hook: str, batch: int, step: int, name: str, tmp_path: Path, whole: Path
) -> None:
    send = [SEND, f"--trainer.callbacks.hook={hook}", f"--trainer.callbacks.batch={batch}"]
    result = call_here(*FIXMATCH, *send, f"--trainer.callbacks.name={name}", f"--run_dir={tmp_path}")
    assert result.returncode == {"SIGTERM": 143, "SIGINT": 130}[name]
    line = f"stopped by {name} after step {step}; to continue: tailmatch fit --run_dir {tmp_path} --ckpt_path last\n"
    assert result.stderr.endswith(line)
    assert saved(tmp_path / "checkpoints")["global_step"] == step
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.suffix == ".partial"] == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    continued(tmp_path, whole)


@pytest.mark.parametrize(
    ("owner", "name", "calls", "step"),
    [(DARP, "_solve_all", 1, 5), (EarlyLearningCurves, "_count", 2, 8), (torch, "save", 2, 4)],
)
def test_a_refinement_a_report_and_a_checkpoint_come_to_their_end(
    owner: Any, name: str, calls: int, step: int, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        send_once(patch, owner, name, calls)
        assert call_here(*FIXMATCH, f"--run_dir={tmp_path}").returncode == 143
    assert saved(tmp_path / "checkpoints")["global_step"] == step
    continued(tmp_path, whole)


def test_labels_in_the_making_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tailmatch(*SELF_TRAINING, f"--run_dir={tmp_path}/whole")
    with monkeypatch.context() as patch:
        send_once(patch, pseudo_label_generator, "predict_set", 2)
        assert call_here(*SELF_TRAINING, f"--run_dir={tmp_path}/run").returncode == 143
    assert saved(tmp_path / "run" / "checkpoints")["global_step"] == 8
    tailmatch("fit", f"--run_dir={tmp_path}/run", "--ckpt_path=last")
    assert_same_training(*(saved(tmp_path / run / "checkpoints") for run in ("whole", "run")))


@pytest.mark.parametrize(("command", "step"), [("test", "test_step"), ("predict", "predict_step")])
def test_an_evaluation_ends_at_once_and_leaves_no_half_file(
    command: str, step: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path for path in whole.rglob("*"))
    output = [f"--output={tmp_path}/predictions.csv"] if command == "predict" else []
    with monkeypatch.context() as patch:
        send_once(patch, ImageClassifier, step)
        result = call_here(command, f"--run_dir={whole}", "--ckpt_path=last", *output)
    assert result.returncode == 143 and result.stderr.endswith("stopped by SIGTERM\n")
    assert list(tmp_path.iterdir()) == []
    assert [path for path in sorted(whole.rglob("*")) if "tfevents" not in path.name] == [
        path for path in before if "tfevents" not in path.name
    ]


def test_nothing_is_kept_of_a_fit_that_is_stopped_while_it_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        file = tmp_path / "images" / "train" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file)
    data = ["--data=ImageFolder", f"--data.root={tmp_path}/images", "--data.image_size=8", "--data.test_holdout=2"]
    split = ["--data.class_counts=ListedCounts", "--data.class_counts.labeled=[6,6]", "--data.labeled_batch_size=2"]
    cache = f"--data.cache_dir={tmp_path}/cache"
    fit = ["fit", *data, *split, cache, "--data.val_holdout=2", "--data.steps_per_epoch=2", "--model=Supervised", *RUN]
    with monkeypatch.context() as patch:
        send_once(patch, image_cache, "decode_image", 20)
        result = call_here(*fit, f"--run_dir={tmp_path}/run")
    assert result.returncode == 143 and result.stderr.endswith("stopped by SIGTERM, and nothing is saved\n")
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"} and not (
        tmp_path / "run" / "checkpoints"
    ).exists()


def test_a_signal_while_modules_are_imported_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:  # the process, where an exception would become another or get lost
        raise SystemExit(code)

    class Sending:
        def find_spec(self, *args: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.delitem(sys.modules, "tailmatch.command_line.errors")
    monkeypatch.setattr(sys, "meta_path", [Sending(), *sys.meta_path])
    result = call_here("fit")
    assert (result.returncode, result.stderr) == (130, "stopped by SIGINT\n")


def test_a_process_that_is_busy_outside_of_python_ends() -> None:
    code = """
import ctypes, os, threading
from tailmatch.command_line.signals import SIGNALS
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
with SIGNALS.handled():
    library.pthread_mutex_lock(mutex)
    threading.Timer(0.5, os.kill, [os.getpid(), 15]).start()
    library.pthread_mutex_lock(mutex)  # waits for ever, as for a process that is lost
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (143, "stopped by SIGTERM\n")


def test_the_end_of_another_process_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data loader handles SIGCHLD, which then arrives like a signal that asks to stop."""
    monkeypatch.setattr(signals, "AT_ONCE", 0.05)
    ended = list[int]()
    monkeypatch.setattr(StopSignals, "_end_here", lambda self, signum: ended.append(signum))
    before = signal.signal(signal.SIGCHLD, lambda signum, frame: None)
    try:
        with StopSignals().handled():
            subprocess.run(["true"], check=True)
            time.sleep(0.3)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert ended == []


def test_a_signal_within_a_destructor_is_not_lost() -> None:
    class Ends:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler runs here, and Python ignores what it raises

    with pytest.raises(Stop, match="stopped by SIGTERM"), StopSignals().handled():
        Ends()
        time.sleep(10)


def test_an_error_that_a_stop_leads_to_is_no_error(monkeypatch: pytest.MonkeyPatch, whole: Path) -> None:
    def fail(*args: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise RuntimeError("a loader is gone")  # as Lightning's teardown may say

    monkeypatch.setattr(ImageClassifier, "test_step", fail)
    result = call_here("test", f"--run_dir={whole}", "--ckpt_path=last")
    assert (result.returncode, result.stderr) == (143, "stopped by SIGTERM\n")


def test_a_repeated_signal_is_one_request_and_a_second_one_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, killed = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(signal, "signal", lambda *args: killed.append(args))
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    asked = StopSignals()
    asked.deferred = True
    asked.handle(signal.SIGINT)
    clock[0] += 0.5
    asked.handle(signal.SIGINT)
    assert asked.received == signal.SIGINT and not killed
    clock[0] += 0.6
    asked.handle(signal.SIGTERM)
    assert killed == [(signal.SIGTERM, signal.SIG_DFL), (os.getpid(), signal.SIGTERM)]
    with pytest.raises(Stop) as stop:
        StopSignals().handle(signal.SIGTERM)
    assert stop.value.code == 143


def test_a_process_that_was_launched_ends_with_0_however_often_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(os, "kill", lambda *args: None)
    monkeypatch.setattr(os, "_exit", end)
    before, asked = signal.getsignal(signal.SIGTERM), StopSignals()
    try:
        with pytest.raises(Stop), asked.handled():
            asked.handle(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN  # while it ends
    finally:
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, before if signum == signal.SIGTERM else signal.default_int_handler)
    asked._since -= SAME_REQUEST
    with pytest.raises(SystemExit) as ended:
        asked.handle(signal.SIGTERM)
    assert ended.value.code == 0


# SLURM

SLURM = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM, whose `scontrol` writes its arguments to the file that is returned."""
    programs = tmp_path / "programs"
    programs.mkdir()
    calls = tmp_path / "calls"
    (programs / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {calls}\n")
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in (SLURM | {"SLURM_JOB_NAME": "train"}).items():
        monkeypatch.setenv(name, value)
    return calls


def test_slurm_runs_a_job_again_that_it_warned(slurm: Path, tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    result = call_here(*FIXMATCH, SEND, "--trainer.callbacks.name=SIGUSR1", f"--run_dir={run_dir}")
    assert result.returncode == 128 + signal.SIGUSR1
    assert f"stopped by SIGUSR1 after step 6; to continue: tailmatch fit --run_dir {run_dir}" in result.stderr
    assert slurm.read_text() == "requeue 77\n" and result.stderr.endswith("SLURM job 77 is requeued\n")
    assert not list(run_dir.glob("hpc_ckpt*"))  # Lightning's own, which would be another state
    continued(run_dir, whole)


def test_sigterm_in_a_slurm_job_saves_and_requeues_nothing(slurm: Path, tmp_path: Path) -> None:
    result = call_here(*FIXMATCH, SEND, f"--run_dir={tmp_path}/run")
    assert result.returncode == 143 and saved(tmp_path / "run" / "checkpoints")["global_step"] == 6
    assert not slurm.exists()


def test_a_job_that_cannot_be_requeued_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    requeue("77")
    assert "SLURM job 77 is not requeued: [Errno 2] No such file or directory: 'scontrol'" in capsys.readouterr().err


# Several processes


OTHERS = [pytest.param(*each, marks=pytest.mark.exhaustive) for each in ((0, "self"), (0, "group"))]


@pytest.mark.parametrize(("rank", "to"), [(1, "self"), *OTHERS])
def test_all_processes_stop_at_the_same_step_and_the_checkpoint_is_whole(rank: int, to: str, tmp_path: Path) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--data.labeled_batch_size=2", "--data.num_workers=1"]
    send = [SEND, f"--trainer.callbacks.rank={rank}", f"--trainer.callbacks.to={to}"]
    result = call(*FIXMATCH, *two, *send, f"--run_dir={tmp_path}", start_new_session=True)
    assert result.returncode == 143, result.stderr
    # Sent in step 6, whose end does not wait for the other process.
    line = f"stopped by SIGTERM after step 7; to continue: tailmatch fit --run_dir {tmp_path} --ckpt_path last\n"
    assert result.stderr.count("stopped by") == 1 and line in result.stderr and "Traceback" not in result.stderr
    assert saved(tmp_path / "checkpoints")["global_step"] == 7
