"""Rows of two processes: gathered, dealt out, shuffled and put back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed
from torch.nn import functional

from tailmatch.lightning_modules.training.distributed import (
    gather_interleaved,
    gather_rows,
    shuffle_rows,
    sum_over_processes,
    take_from_first,
    unshuffle_rows,
)
from tests.pretended_gpu import GPU, PretendedGPU
from tests.process_group import on_two_processes


def images(rank: int) -> Tensor:
    return torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(rank))


def normalized(rows: Tensor) -> Tensor:
    return functional.batch_norm(rows, None, None, training=True)


ORDER = torch.tensor([3, 0, 5, 1, 4, 2])


def process(rank: int, folder: Path) -> None:
    rows = images(rank).to(memory_format=torch.channels_last)
    shuffled = shuffle_rows(rows, ORDER)
    taken = [torch.full((2, 1), float(rank)), torch.full((3,), 5.0 + rank)]
    take_from_first(taken)
    result = {
        "taken": taken,
        "gathered": gather_rows(rows),
        "shuffled": shuffled,
        "back": unshuffle_rows(shuffled, ORDER),
        "normalized": unshuffle_rows(normalized(shuffled), ORDER),
        "shards": gather_interleaved(torch.arange(rank, 7, 2).view(-1, 1) * torch.ones(2), total=7),
    }
    torch.save(result, folder / f"{rank}.pt")


@pytest.mark.xdist_group("processes")
def test_two_processes(tmp_path: Path) -> None:
    on_two_processes(process, tmp_path)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    everything = torch.cat([images(0), images(1)])
    by_batches = torch.empty_like(everything)
    for part in ORDER.view(2, 3):  # what one process normalizes together
        by_batches[part] = normalized(everything[part])
    for rank, result in enumerate(results):
        assert [each.tolist() for each in result["taken"]] == [[[0], [0]], [5, 5, 5]]
        assert torch.equal(result["gathered"], everything)
        assert torch.equal(result["shuffled"], everything[ORDER.view(2, 3)[rank]])
        assert torch.equal(result["back"], everything)
        torch.testing.assert_close(result["normalized"], by_batches)
        assert result["shards"].tolist() == [[i, i] for i in range(7)]


@pytest.mark.parametrize("size", [1, 4])
def test_one_process_keeps_its_rows(size: int) -> None:
    rows, order = torch.randn(size, 2), torch.randperm(size)
    assert gather_rows(rows) is rows
    assert torch.equal(gather_interleaved(rows, size), rows)
    assert torch.equal(shuffle_rows(rows, order), rows[order])
    assert torch.equal(unshuffle_rows(shuffle_rows(rows, order), order), rows)


def test_nccl_is_given_memory_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_gpu(tensor: Tensor) -> Tensor:
        assert tensor.device == GPU, "NCCL refuses it"
        return tensor

    monkeypatch.setattr("tailmatch.lightning_modules.training.distributed.place", lambda: (0, 2))
    monkeypatch.setattr(distributed, "get_backend", lambda: "nccl")
    monkeypatch.setattr(distributed, "all_reduce", lambda value: on_gpu(value).mul_(2))
    monkeypatch.setattr(
        distributed,
        "all_gather",
        lambda parts, rows: [part.copy_(on_gpu(rows) + rank) for rank, part in enumerate(parts)],
    )
    rows = torch.zeros(2, 1)
    with PretendedGPU():
        for device in (torch.device("cpu"), GPU):
            mine = rows.to(device)
            total, gathered, dealt = sum_over_processes(mine + 1), gather_rows(mine), gather_interleaved(mine, 3)
            assert {total.device, gathered.device, dealt.device} == {device}
            assert (total.tolist(), gathered.tolist()) == ([[2], [2]], [[0], [0], [1], [1]])
            assert dealt.tolist() == [[0], [1], [0]] and mine.tolist() == [[0], [0]]
