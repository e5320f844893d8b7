"""Sums and rows over the processes of a run, with several and with one."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional


def place() -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) without distribution."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of a tensor over the processes, in a tensor of its own; the tensor itself on one process."""
    if place()[1] == 1:
        return value
    total = _shared(value.clone())
    dist.all_reduce(total)
    return total.to(value.device)


def gather_rows(rows: Tensor) -> Tensor:
    """Rows `[B, ...]` of every process in order of rank, `[W B, ...]`. No gradient; B is the same on all."""
    _, world_size = place()
    return rows if world_size == 1 else torch.cat(_gathered(rows))


def gather_interleaved(rows: Tensor, total: int, device: torch.device | None = None) -> Tensor:
    """Put together what was dealt out: global row i is row `i // W` of process `i % W`.

    Args:
        rows: `[n, D]` of this process; n is the same everywhere or one less on the later processes.
        total: N, rows of all.
        device: Where the result goes, such as the CPU for one that is too large; None leaves it where the rows are.

    Returns:
        `[N, D]`, on every process.
    """
    device = device or rows.device
    _, world_size = place()
    if world_size == 1:
        return rows.to(device)
    padded = functional.pad(rows, (0, 0, 0, -(-total // world_size) - len(rows)))
    return torch.stack([part.to(device) for part in _gathered(padded)], dim=1).flatten(0, 1)[:total]


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


def _gathered(rows: Tensor) -> list[Tensor]:
    sent = _shared(rows.contiguous())
    parts = [torch.empty_like(sent) for _ in range(place()[1])]
    dist.all_gather(parts, sent)
    return [part.to(rows.device) for part in parts]


def _shared(value: Tensor) -> Tensor:
    """The tensor where processes can send it: NCCL knows the memory of GPUs alone.

    What a callback keeps is in the processor's between a resume and its first step, where a checkpoint may be saved.
    """
    return value.to(torch.device("cuda", torch.cuda.current_device())) if dist.get_backend() == "nccl" else value
