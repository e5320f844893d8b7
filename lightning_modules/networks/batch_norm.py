"""Control over which forward passes update BatchNorm's running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Leave running statistics unchanged, while training mode still normalizes by the batch's own statistics."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
