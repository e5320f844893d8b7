"""Tasks that run together: the same bits in each, by either way, and no waiting for ever."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.spark import barrier
from tailmatch.spark.barrier import Group, check_tasks, group_of, run_together
from tailmatch.spark.labels import one_message

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class Contexts:
    """Contexts of tasks that are threads."""

    def __init__(self, size: int, hosts: list[str] | None = None) -> None:
        self.size = size
        self.hosts = hosts or ["127.0.0.1"] * size
        self.said: list[str] = [""] * size
        self.meeting = threading.Barrier(size, timeout=60)

    def context(self, rank: int) -> Any:
        def all_gather(message: str = "") -> list[str]:
            self.said[rank] = message
            self.meeting.wait()
            said = list(self.said)
            self.meeting.wait()
            return said

        infos = [SimpleNamespace(address=f"{host}:{7000 + task}") for task, host in enumerate(self.hosts)]
        return SimpleNamespace(allGather=all_gather, getTaskInfos=lambda: infos, partitionId=lambda: rank)

    def run(self, work: Callable[[Group], Any], exchange: str) -> list[Any]:
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(lambda rank: work(group_of(self.context(rank), exchange)), range(self.size)))


def value(rank: int) -> torch.Tensor:
    """Numbers of all magnitudes, whose sum depends on the order."""
    random = torch.Generator().manual_seed(rank)
    return torch.randn(30, 7, generator=random, dtype=torch.float64) * 10.0 ** torch.arange(-3, 4)


def test_all_tasks_have_the_same_bits_by_either_way() -> None:
    expected = value(0)
    for rank in range(1, 5):
        expected = expected + value(rank)
    for exchange in ("gloo", "allgather", "auto"):
        found = Contexts(5).run(lambda group: (group.reduce(value(group.rank)), group), exchange)
        assert all(torch.equal(total, expected) for total, _ in found), exchange
        assert [group.rank for _, group in found] == list(range(5))
        assert {(group.exchange, group.refused) for _, group in found} == {(exchange.replace("auto", "gloo"), "")}


def test_what_is_added_up_is_not_changed() -> None:
    def kept(group: Group) -> bool:
        mine = value(group.rank)
        group.reduce(mine)
        return torch.equal(mine, value(group.rank))

    assert Contexts(2).run(kept, "gloo") == [True, True] and Contexts(1).run(kept, "auto") == [True]


@pytest.mark.parametrize("hosts", [["192.0.2.1", "127.0.0.1"], ["127.0.0.1", "192.0.2.1"]])
def test_where_ports_are_closed_sums_go_through_the_driver(hosts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of nobody stand for closed ports."""
    monkeypatch.setattr(barrier, "CONNECT_SECONDS", 1)
    found = Contexts(2, hosts).run(lambda group: (group.reduce(value(group.rank)), group), "auto")
    assert all(torch.equal(total, value(0) + value(1)) for total, _ in found)
    assert {group.exchange for _, group in found} == {"allgather"}
    assert len({group.refused for _, group in found}) == 1 and found[0][1].refused.startswith("task ")
    with pytest.raises(SettingsError, match=r"exchange is gloo, and tasks cannot connect: task \d on .*allgather"):
        Contexts(2, hosts).run(lambda group: group, "gloo")


def totals(batches: Iterator[pa.RecordBatch], connect: Callable[[], Group]) -> Iterator[pa.RecordBatch]:
    rows = sum(len(batch) for batch in batches)
    group = connect()
    total = group.reduce(value(group.rank)).numpy().tobytes()
    count = int(group.reduce(torch.tensor([rows], dtype=torch.float64)))
    columns = {"total": [total], "count": [count], "exchange": [group.exchange], "size": [group.size]}
    yield pa.RecordBatch.from_pydict(columns)


@pytest.mark.spark
@pytest.mark.parametrize("exchange", ["gloo", "allgather"])
def test_two_tasks_add_up(spark: "SparkSession", exchange: str) -> None:
    schema = "total binary, count long, exchange string, size long"
    rows = run_together(spark.range(1000), totals, schema, tasks=2, by="id", exchange=exchange).collect()
    assert len(rows) == 2 and {(row["count"], row["exchange"], row["size"]) for row in rows} == {(1000, exchange, 2)}
    expected = (value(0) + value(1)).numpy()
    assert all(np.array_equal(np.frombuffer(row["total"]).reshape(30, 7), expected) for row in rows)


def dies(batches: Iterator[pa.RecordBatch], connect: Callable[[], Group]) -> Iterator[pa.RecordBatch]:
    import os

    list(batches)
    group = connect()
    if group.rank == 1:
        os._exit(7)
    group.reduce(value(0))
    yield from ()


@pytest.mark.spark
def test_a_task_that_dies_ends_all_with_one_message(spark: "SparkSession") -> None:
    begin = time.monotonic()
    with pytest.raises(SettingsError, match="Spark could not add up: .+") as ended, one_message("add up"):
        run_together(spark.range(10), dies, "total long", tasks=2, by="id", exchange="gloo").collect()
    assert "\n" not in str(ended.value) and time.monotonic() - begin < 100


@pytest.mark.spark
def test_more_tasks_than_slots_are_refused(spark: "SparkSession") -> None:
    assert check_tasks(spark, None) == 2 and check_tasks(spark, 1) == 1
    with pytest.raises(SettingsError, match="tasks is 3, and they must all run at once, but Spark runs 2 at once"):
        check_tasks(spark, 3)
    with pytest.raises(SettingsError, match="tasks is 0; it must be at least 1"):
        check_tasks(spark, 0)
