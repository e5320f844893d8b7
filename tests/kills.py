"""Train in processes of their own, which SIGKILL themselves at drawn moments, some of them inside a write."""

import json
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from multiprocessing import connection, get_context, set_forkserver_preload, set_start_method
from pathlib import Path
from typing import IO, Any, Protocol
from unittest import mock

import torch
from pytorch_lightning import Callback, Trainer
from torch import distributed

from tailmatch.command_line.lightning_cli import TailmatchCLI
from tests.contract import Case, assert_same_training, at_epoch_ends, callbacks_of, last, prepare, saved
from tests.process_group import leave
from tests.typed import tailmatch

KILLED = -signal.SIGKILL
CLOCK = 0.03
"""The longest time, in seconds, after which a kill comes by the clock: about that of a step with its checkpoint."""


@dataclass(frozen=True)
class Moment:
    """When a training ends by SIGKILL.

    Attributes:
        steps: The number of steps that the training makes before, since it was started or resumed.
        written: The share of the bytes of the next checkpoint that are on disk; 1 is a whole file that has not yet got
            its name. None: the kill comes by the clock, wherever the training then is.
        seconds: How long after those steps the kill comes by the clock.
        rank: The number of the process that is killed first, 0 if the kill is inside a write.
    """

    steps: int
    written: float | None = None
    seconds: float = 0.0
    rank: int = 0


def draw_moments(seed: int, kills: int, processes: int = 1) -> list[Moment]:
    """Draw when the trainings of a run are killed, each after at most two steps; half of them are inside a write."""
    draw = random.Random(seed)
    moments = []
    for _ in range(kills):
        steps = draw.randint(0, 2)
        if draw.random() < 0.5:
            moments.append(Moment(steps, written=min(1.0, 1.2 * draw.random())))
        else:
            moments.append(Moment(steps, seconds=CLOCK * draw.random(), rank=draw.randrange(processes)))
    return moments


class KillAt(Callback):
    """A callback that kills its process at a moment."""

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.begun = 0

    def on_train_start(self, *args: Any) -> None:
        self._arm()

    def on_train_batch_end(self, *args: Any) -> None:
        self.begun += 1
        self._arm()

    def _arm(self) -> None:
        if self.begun != self.moment.steps:
            return
        if self.moment.written is None:
            threading.Timer(self.moment.seconds, die).start()
        else:
            torch.save = self._save_a_part

    def _save_a_part(self, content: Any, file: IO[bytes], *args: Any, **kwargs: Any) -> None:
        assert self.moment.written is not None
        buffer = BytesIO()
        SAVE(content, buffer, *args, **kwargs)
        file.write(buffer.getbuffer()[: int(len(buffer.getbuffer()) * self.moment.written)])
        file.flush()
        die()


SAVE = torch.save


def die() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


class Killable(Protocol):
    """A training in a folder of its own, on some processes, that goes on where it was killed."""

    @property
    def folder(self) -> Path: ...

    @property
    def processes(self) -> int: ...

    def begin_or_go_on(self, rank: int, number: int, moment: Moment | None) -> None:
        """Train until the end or the moment, as one of the processes, after so many kills."""


@dataclass(frozen=True)
class Training:
    """A small training of the contract, in a folder of its own.

    Attributes:
        case: The method, and the name of its remedy.
        folder: Where `checkpoints/last.ckpt` is saved after every step and epoch, and `metrics.json` at the end.
        workers: The number of loader processes at the start, after the first kill, and so on, in turn.
        processes: The number of processes that train.
    """

    case: Case
    folder: Path
    workers: Sequence[int] = (0,)
    processes: int = 1

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics of the last validation and of the test, and those of the last steps, if all were logged."""
        return dict(json.loads((self.folder / "metrics.json").read_text()))

    def begin_or_go_on(self, rank: int, number: int, moment: Moment | None) -> None:
        """See `Killable.begin_or_go_on`."""
        method, remedy = self.case
        file = self.checkpoints / "last.ckpt"
        saves = [last(self.checkpoints, every_n_train_steps=1), at_epoch_ends(self.checkpoints)]
        kills = [KillAt(moment)] if moment is not None and moment.rank == rank else []
        options: dict[str, Any] = {"devices": self.processes, "strategy": "ddp"} if self.processes > 1 else {}
        trainer, model, data = prepare(method, self.folder, *callbacks_of(remedy), *kills, *saves, **options)
        data.num_workers = self.workers[number % len(self.workers)]
        trainer.fit(model, data, ckpt_path=file if file.exists() else None)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics |= trainer.test(model, data, verbose=False)[0]
        if rank == 0:
            (self.folder / "metrics.json").write_text(json.dumps(metrics))


@dataclass(frozen=True)
class Fit:
    """A small run of the command line, and its test.

    Attributes:
        folder: Where the run folder `run` is.
        arguments: The arguments of `tailmatch fit`.
    """

    folder: Path
    arguments: Sequence[str]
    processes: int = 1

    def begin_or_go_on(self, rank: int, number: int, moment: Moment | None) -> None:
        """See `Killable.begin_or_go_on`."""
        run = [f"--run_dir={self.folder}/run"]
        saved = (self.folder / "run" / "checkpoints" / "last.ckpt").exists()
        with killed_at(moment):
            tailmatch("fit", *run, *(["--ckpt_path=last"] if saved else ["--overwrite=true", *self.arguments]))
        tailmatch("test", *run, "--ckpt_path=best")


@contextmanager
def killed_at(moment: Moment | None) -> Iterator[None]:
    """Kill this process at a moment of the trainings that the command line makes."""
    make = TailmatchCLI.instantiate_trainer

    def with_kill(cli: TailmatchCLI, **options: Any) -> Trainer:
        trainer = make(cli, **options)
        if moment is not None:
            trainer.callbacks.insert(0, KillAt(moment))  # type: ignore[attr-defined]
        return trainer

    with mock.patch.object(TailmatchCLI, "instantiate_trainer", with_kill):
        yield


def outlive(training: Killable, moments: Sequence[Moment]) -> list[int]:
    """Start a training anew after each kill, and let it end after the last; return the exit codes."""
    training.folder.mkdir()
    return [_attempt(training, number, moment) for number, moment in enumerate([*moments, None])]


def _attempt(training: Killable, number: int, moment: Moment | None) -> int:
    """Start all processes of a training, and kill those that are left when the first is dead."""
    set_forkserver_preload(["tests.contract", "tests.kills"])  # forks of a server: imports take seconds
    forks = get_context("forkserver")
    made = [forks.Process(target=_process, args=(training, rank, number, moment)) for rank in range(training.processes)]
    for process in made:
        process.start()
    connection.wait([process.sentinel for process in made], timeout=120)
    for process in made:
        if moment is None:
            process.join(timeout=120)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]  # also its loader processes
        process.join()
    code = made[0 if moment is None else moment.rank].exitcode
    if code not in (0, KILLED):
        print(_log(training, 0, number).read_text())
    return int(code or 0)


def assert_same_end(whole: Training, other: Training) -> None:
    """Assert that a training ended with the bits and the metrics of another, and left no other files."""
    assert_same_training(saved(whole.checkpoints), saved(other.checkpoints), whole.case[1])
    assert whole.metrics == other.metrics
    assert {path.suffix for path in other.checkpoints.iterdir()} <= {".ckpt", ".partial"}


def _log(training: Killable, rank: int, number: int) -> Path:
    return training.folder / f"log-{number}-{rank}.txt"


def _process(training: Killable, rank: int, number: int, moment: Moment | None) -> None:
    os.setsid()
    set_start_method("fork", force=True)  # that of loader processes, as in a user's process
    log = os.open(_log(training, rank, number), os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    if training.processes > 1:
        os.environ["LOCAL_RANK"] = str(rank)  # so that Lightning starts no more processes
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{training.folder}/store-{number}",
            rank=rank,
            world_size=training.processes,
            timeout=timedelta(seconds=60),
        )
    training.begin_or_go_on(rank, number, moment)
    if training.processes > 1:
        leave()
