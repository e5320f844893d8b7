"""Sums and rows over the processes of a run; with one process, everything works without communication."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional


def place() -> tuple[int, int]:
    """Return the rank of this process and the number of processes W; (0, 1) without distribution."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum a tensor over the processes into a new tensor; on one process, return the tensor itself."""
    if place()[1] == 1:
        return value
    total = _shared(value.clone())
    dist.all_reduce(total)
    return total.to(value.device)


def mean_over_processes(rows: Tensor) -> Tensor:
    """Compute the mean `float32 [K]` of the rows `[B, K]` of all processes, which may have different B. No gradient."""
    present = functional.pad(rows.detach().float().sum(dim=0), (0, 1), value=len(rows))
    present = sum_over_processes(present)
    return present[:-1] / present[-1]


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate rows `[B, ...]` of all processes by rank, `[W B, ...]`; B is the same on all. No gradient."""
    _, world_size = place()
    return rows if world_size == 1 else torch.cat(_gathered(rows))


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Concatenate rows `[B, D]` of all processes by rank, `[W B, D]`, with gradient; B is the same on all.

    If each process has the same loss of the result, the mean of their gradients, which is that of DDP, is the gradient
    of one process with all rows.
    """
    if place()[1] == 1:
        return rows
    from torch.distributed.nn.functional import all_gather

    parts: Sequence[Tensor] = all_gather(rows.contiguous())  # type: ignore[no-untyped-call]
    return torch.cat(list(parts))


def take_from_first(tensors: Sequence[Tensor]) -> None:
    """Replace tensors of one type, in place, by those of the first process; all go in one message."""
    if place()[1] == 1 or not tensors:
        return
    joint = _shared(torch.cat([tensor.flatten() for tensor in tensors]))
    dist.broadcast(joint, 0)
    for tensor, part in zip(tensors, torch.split(joint, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def gather_interleaved(rows: Tensor, total: int, device: torch.device | None = None) -> Tensor:
    """Assemble rows that are distributed round-robin: global row i is row `i // W` of process `i % W`.

    Args:
        rows: Rows `[n, D]` of this process; n is the same everywhere, or one less on the later processes.
        total: Number N of rows of all processes.
        device: Device of the result, such as the CPU for one that is too large; None keeps the device of `rows`.

    Returns:
        All rows `[N, D]`, on every process.
    """
    device = device or rows.device
    _, world_size = place()
    if world_size == 1:
        return rows.to(device)
    padded = functional.pad(rows, (0, 0, 0, -(-total // world_size) - len(rows)))
    return torch.stack([part.to(device) for part in _gathered(padded)], dim=1).flatten(0, 1)[:total]


def shuffle_rows(rows: Tensor, order: Tensor) -> Tensor:
    """Shuffle the rows of all processes and return this process's share `[B, ...]`.

    Args:
        rows: Rows `[B, ...]` of this process.
        order: Permutation `int64 [W B]`, the same on every process.
    """
    rank, world_size = place()
    return gather_rows(rows)[order.view(world_size, -1)[rank]]


def unshuffle_rows(rows: Tensor, order: Tensor) -> Tensor:
    """Undo `shuffle_rows`: return the rows `[W B, ...]` of all processes in their original order."""
    return gather_rows(rows)[order.argsort()]


def _gathered(rows: Tensor) -> list[Tensor]:
    sent = _shared(rows.contiguous())
    parts = [torch.empty_like(sent) for _ in range(place()[1])]
    dist.all_gather(parts, sent)
    return [part.to(rows.device) for part in parts]


def _shared(value: Tensor) -> Tensor:
    """Move a tensor to where processes can exchange it: NCCL only supports GPU memory.

    Between a resume and its first step, when a checkpoint may be saved, a callback's state is in CPU memory.
    """
    return value.to(torch.device("cuda", torch.cuda.current_device())) if dist.get_backend() == "nccl" else value
