"""The parts of a network's backbone in the order of its layers: a stem, then blocks."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from tailmatch.lightning_modules.networks.network import Network

STEM = "stem"
"""Name of the part before the first block: first convolution, patch and position embeddings."""

_SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Part:
    """A part of a backbone that is trained or frozen as a whole.

    Attributes:
        name: Name of its block in the network, or `STEM`.
        modules: Names of the modules that it consists of.
        parameters: Names of parameters that are in none of its modules, such as a class token.
    """

    name: str
    modules: list[str]
    parameters: list[str]


def backbone_parts(network: Network) -> list[Part]:
    """Divide the backbone of any network into its parts, in the order in which its layers are registered.

    A block is a module of two or more layers with weight matrices, such as a residual block or a transformer block, as
    an element of a sequence (`nn.Sequential`, `nn.ModuleList`) or beside others. Single layers after a block (a norm, a
    last convolution) belong to it; those before the first one are the stem. In a backbone of single layers, each one
    with a weight matrix is a block.

    Args:
        network: Network. Its head and its `new_layers` are in no part.
    """
    units = list(_units(network, "", {"head", *network.new_layers}, at_root=True))
    begins = _is_block if any(_is_block(unit) for _, unit in units) else _has_matrix
    parts = [Part(STEM, [], [])]
    for name, unit in units:
        if isinstance(unit, nn.Parameter):
            parts[-1].parameters.append(name)
            continue
        if begins(unit):
            parts.append(Part(name, [], []))
        parts[-1].modules.append(name)
    return parts if parts[0].modules or parts[0].parameters else parts[1:]


def _units(
    module: nn.Module, prefix: str, left_out: set[str], at_root: bool = False
) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Walk through a module and the sequences in it, to the blocks and single layers.

    At the root, a module that is the only one with parameters is what others call the network.
    """
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, parameter
    children = [(prefix + name, child) for name, child in module.named_children() if prefix + name not in left_out]
    is_chain = at_root and sum(_has_parameters(child) for _, child in children) == 1
    for name, child in children:
        is_inner = is_chain and _has_parameters(child) and any(True for _ in child.children())
        if is_inner or isinstance(child, _SEQUENCES) or _holds_blocks(child):
            yield from _units(child, f"{name}.", left_out, is_inner and not isinstance(child, _SEQUENCES))
        else:
            yield name, child


def _holds_blocks(module: nn.Module) -> bool:
    """Tell whether a module has a sequence of at least two blocks, as a stage or an encoder has."""
    sequences = [child for child in module.children() if isinstance(child, _SEQUENCES)]
    return any(sum(map(_is_block, sequence.children())) > 1 for sequence in sequences)


def _is_block(unit: nn.Module | nn.Parameter) -> bool:
    matrices = 0 if isinstance(unit, (nn.Parameter, *_SEQUENCES)) else sum(p.ndim > 1 for p in unit.parameters())
    return matrices > 1


def _has_matrix(unit: nn.Module | nn.Parameter) -> bool:
    return isinstance(unit, nn.Module) and any(parameter.ndim > 1 for parameter in unit.parameters())


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())
