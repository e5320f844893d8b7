"""Sums and rows over the processes of a run."""

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum of a tensor over the processes, in a tensor of its own; the tensor itself on one process."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def gather_interleaved(rows: Tensor, total: int) -> Tensor:
    """Rows of all processes on each of them: global row i is row `i // W` of process `i % W`.

    Args:
        rows: `[n, K]` of this process.
        total: N, rows of all.

    Returns:
        `[N, K]` on the CPU, or `rows` if they are empty.
    """
    if not rows.numel():
        return rows
    world_size = dist.get_world_size()
    largest = -(-total // world_size)
    padded = torch.nn.functional.pad(rows, (0, 0, 0, largest - len(rows)))
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    dist.all_gather(parts, padded)
    return torch.stack([part.cpu() for part in parts], dim=1).flatten(0, 1)[:total]
