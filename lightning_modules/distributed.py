"""Rows of all processes, in training with several and with one."""

import torch
from torch import Tensor
from torch.distributed import all_gather, get_rank, get_world_size, is_available, is_initialized


def place() -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) without distribution."""
    return (get_rank(), get_world_size()) if is_available() and is_initialized() else (0, 1)


def gather_rows(rows: Tensor) -> Tensor:
    """Rows `[B, ...]` of every process in order of rank, `[W B, ...]`. No gradient; B is the same on all."""
    _, world_size = place()
    if world_size == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size)]
    all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_shards(rows: Tensor, size: int) -> Tensor:
    """Put together what was dealt out: row i of `[size, D]` comes from process i modulo W.

    Args:
        rows: `[n, D]`, this process' rows in order; n is the same everywhere or one less on the later processes.
        size: All rows together.
    """
    _, world_size = place()
    most = -(-size // world_size)
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
    return gather_rows(padded).view(world_size, most, -1).transpose(0, 1).flatten(0, 1)[:size]


def shuffle_rows(rows: Tensor, order: Tensor) -> Tensor:
    """This process' share `[B, ...]` of the rows of all processes, in another order.

    Args:
        rows: `[B, ...]` of this process.
        order: `int64 [W B]`, a permutation, the same on every process.
    """
    rank, world_size = place()
    return gather_rows(rows)[order.view(world_size, -1)[rank]]


def unshuffle_rows(rows: Tensor, order: Tensor) -> Tensor:
    """Undo `shuffle_rows`: the rows `[W B, ...]` of all processes in their first order."""
    return gather_rows(rows)[order.argsort()]
