"""Run a function in tasks that Spark starts all at once (barrier mode), with sums of tensors over these tasks.

The rows stay in the tasks. What travels is what the function passes to `Group.reduce`, by gloo, or, where the executors
cannot open ports to each other, through Spark's driver (`BarrierTaskContext.allGather`).

Both ways gather the tensors of all tasks and add them up in the order of the tasks, so that all tasks have the same
bits, and both ways give the same.
"""

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_choice, check_count
from tailmatch.spark.session import slots

if TYPE_CHECKING:
    from pyspark import BarrierTaskContext
    from pyspark.sql import DataFrame

EXCHANGES = ("auto", "gloo", "allgather")
"""Gloo if its ports are open, else allGather; one of both."""

CONNECT_SECONDS = 20
"""How long the tasks try to connect to each other; they all begin at the same time."""

REDUCE_SECONDS = 600
"""How long a task waits for the tensors of the others, whose share of the work is as large as its own."""

Batches = Iterator[Any]
"""Record batches of Arrow."""


@dataclass(frozen=True)
class Group:
    """The tasks of a barrier stage, as one of them sees them.

    Attributes:
        rank: The number of this task, from 0.
        size: The number of tasks.
        reduce: The sum of a float64 tensor over all tasks, with the same bits in each; all must call it alike.
        exchange: How the tensors travel, `gloo` or `allgather`.
        refused: Why gloo could not be used. Empty: it was not tried, or it is used.
    """

    rank: int
    size: int
    reduce: Callable[[Tensor], Tensor]
    exchange: str
    refused: str = ""


Work = Callable[[Batches, Callable[[], Group]], Batches]
"""A function of the rows of a task, which it reads first, and of a function that connects the tasks and waits until all
have come so far. It, and what it refers to, must be picklable."""


def check_tasks(session: Any, tasks: int | None) -> int:
    """Return the number of tasks, which is that of the slots unless another one is asked for.

    Raises:
        SettingsError: There are more tasks than slots. Spark would wait without a word until there are enough.
    """
    available = slots(session)
    if tasks is None:
        return available
    check_count("tasks", tasks)
    if tasks > available:
        raise SettingsError(
            f"tasks is {tasks}, and they must all run at once, but Spark runs {available} at once: lower it, or start "
            "Spark with more cores (spark-submit --num-executors, --executor-cores; alone: --master local[N])"
        )
    return tasks


def run_together(frame: "DataFrame", work: Work, schema: str, *, tasks: int, by: str, exchange: str) -> "DataFrame":
    """Run a function in tasks that all run at once, each on its share of the rows.

    Args:
        frame: The rows.
        work: The function.
        schema: The columns that it gives, in Spark's words.
        tasks: The number of tasks, checked by `check_tasks`.
        by: The column whose hash says which task has a row, so that the same rows always meet.
        exchange: One of `EXCHANGES`.
    """
    check_choice("exchange", exchange, EXCHANGES)
    spread = frame.repartition(tasks, by)  # Spark refuses `coalesce` before a barrier
    return spread.mapInArrow(partial(_task, work=work, exchange=exchange), schema, barrier=True)


def _task(batches: Batches, work: Work, exchange: str) -> Batches:
    """Run in a task."""
    from pyspark import BarrierTaskContext

    yield from work(batches, partial(group_of, BarrierTaskContext.get(), exchange))


def group_of(context: "BarrierTaskContext", exchange: str) -> Group:
    """Connect the tasks of a barrier stage; all must call it at the same time.

    Raises:
        SettingsError: Gloo is asked for, and a task cannot connect to another one.
    """
    size = len(context.getTaskInfos())
    rank = context.partitionId()
    if size == 1:
        return Group(rank, size, torch.clone, exchange if exchange != "auto" else "gloo")
    refused = ""
    if exchange != "allgather":
        group, refused = _gloo(context, rank, size)
        if group is not None:
            return Group(rank, size, partial(_sum_by_gloo, group, rank, size), "gloo")
        if exchange == "gloo":
            raise SettingsError(f"exchange is gloo, and tasks cannot connect: {refused}; set it to allgather or auto")
    return Group(rank, size, partial(_sum_by_driver, context), "allgather", refused)


# Gloo


def _gloo(context: "BarrierTaskContext", rank: int, size: int) -> tuple[Any, str]:
    """Make a process group, or say why it is not possible; the answer is the same in all tasks."""
    from torch.distributed import ProcessGroupGloo, TCPStore  # type: ignore[attr-defined]

    hosts = [info.address.rsplit(":", 1)[0] for info in context.getTaskInfos()]
    store, group, failed = None, None, ""
    limit = timedelta(seconds=CONNECT_SECONDS)
    try:
        if rank == 0:  # a port that is free
            store = TCPStore(hosts[0], 0, size, is_master=True, timeout=limit, wait_for_workers=False)
    except RuntimeError as error:
        failed = _first_line(error)
    port = int(context.allGather("" if store is None else str(store.port))[0] or 0)
    try:
        if port:
            store = store or TCPStore(hosts[0], port, size, is_master=False, timeout=limit, wait_for_workers=False)
            group = _connected(ProcessGroupGloo, store, hosts[rank], rank, size)
    except RuntimeError as error:
        failed = _first_line(error)
    messages = context.allGather(failed)
    reasons = [f"task {task} on {hosts[task]}: {reason}" for task, reason in enumerate(messages) if reason]
    return (None, reasons[0]) if reasons else (group, "")


def _connected(kind: Any, store: Any, host: str, rank: int, size: int) -> Any:
    options = kind._Options()
    options._devices = [kind.create_device(hostname=host)]  # the address that Spark knows, not what the system guesses
    options._timeout = timedelta(seconds=CONNECT_SECONDS)
    group = kind(store, rank, size, options)
    _sum_by_gloo(group, rank, size, torch.zeros(1, dtype=torch.float64))  # the tasks connect now
    group._set_default_timeout(timedelta(seconds=REDUCE_SECONDS))
    return group


def _sum_by_gloo(group: Any, rank: int, size: int, value: Tensor) -> Tensor:
    from torch.distributed import BroadcastOptions, GatherOptions

    value = value.contiguous()
    to_first, from_first = GatherOptions(), BroadcastOptions()
    to_first.rootRank = from_first.rootRank = 0
    parts = [torch.empty_like(value) for _ in range(size)] if rank == 0 else []
    group.gather([parts] if rank == 0 else [], [value], to_first).wait()
    total = _in_order(parts) if rank == 0 else torch.empty_like(value)
    group.broadcast([total], from_first).wait()
    return total


# Spark's driver


def _sum_by_driver(context: "BarrierTaskContext", value: Tensor) -> Tensor:
    text = base64.b64encode(value.contiguous().numpy().tobytes()).decode()
    parts = (np.frombuffer(base64.b64decode(message)) for message in context.allGather(text))
    return _in_order([torch.from_numpy(part.copy()).view(value.shape) for part in parts])


def _in_order(parts: list[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
