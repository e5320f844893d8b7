"""Make checkpoints like those of a run of the command line, without the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

NAMES = ["cat", "dog", "owl"]


def trained_file(
    file: Path,
    network: nn.Module,
    arguments: dict[str, Any],
    names: Sequence[str] = NAMES,
    size: Sequence[int] | None = (8, 8),
    method: str = "tailmatch.lightning_modules.Supervised",
    **init_args: Any,
) -> str:
    """Write a checkpoint of a method, with a network made by `arguments`; returns its path."""
    kind = type(network)
    settings = {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}
    model = {"class_path": method, "init_args": {"network": settings, **init_args}}
    content = {
        "state_dict": {f"network.{name}": tensor for name, tensor in network.state_dict().items()},
        "class_names": list(names),
        "image_size": None if size is None else list(size),
        "config": yaml.safe_dump({"model": model}),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return str(file)


def shaken(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in evaluation mode, with statistics of BatchNorm and of channels as if it were trained."""
    torch.manual_seed(seed)
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "mean")):
            buffer.uniform_(-0.2, 0.2)
        if name.endswith(("running_var", "std")):
            buffer.uniform_(0.5, 1.5)
    return network.eval()
