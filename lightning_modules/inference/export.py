"""Write a checkpoint's network to a file that runs without this package: the function behind `tailmatch export`."""

import copy
import io
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import check_free, naming
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.checkpoints.remote_files import file_digest, local_file
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.trained_network import check_classifies_by_network, trained_network
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.networks.adapters import adapter_tensors, merge_adapters
from tailmatch.lightning_modules.networks.blank_image import debias_head
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tailmatch.lightning_modules.networks.inputs import to_float
from tailmatch.lightning_modules.training.finite import check_weights, infinite_by_design

ONNX, PROGRAM = ".onnx", ".pt2"
CHECKPOINT = "checkpoint"
"""The entry of the metadata with the SHA-256 of the checkpoint file, in hexadecimal; none for a method in memory."""


class PixelClassifier(nn.Module):
    """A network with its preprocessing, as it is exported.

    Args:
        network: Network in evaluation mode.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, categories: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute probs and logits, `float32 [B, K]` each.

        Args:
            images: Images `uint8 [B, 3, H, W]`.
            categories: Positions of the images' values in the L levels of the network's `vocabulary`, `int64 [B, L]`,
                -1 where unknown; None if all are unknown.
        """
        logits = self.network(self.network.with_categories(to_float(images), categories)).float()
        return logits.softmax(dim=1), logits


def exported(network: Network, image_size: Sequence[int]) -> ExportedProgram:
    """Export a `PixelClassifier` for batches of any size, and images of one height and width.

    For a network that uses categories, the program has a second input `categories`. The network is in evaluation mode.
    """
    examples = {"images": torch.zeros(2, 3, *image_size, dtype=torch.uint8)}  # one image would fix the batch size
    if network.vocabulary is not None:
        examples["categories"] = torch.zeros(2, len(network.vocabulary), dtype=torch.int64)
    batch = Dim("batch", max=2**31 - 1)  # torch 2.6 requires a bound
    with torch.no_grad():
        return torch.export.export(
            PixelClassifier(network).train(network.training),
            tuple(examples.values()),
            dynamic_shapes={name: {0: batch} for name in examples},
            strict=False,  # the default since torch 2.7
        )


def write_program(program: ExportedProgram, facts: dict[str, str], path: Path) -> None:
    """Write a `.pt2` file for `torch.export.load`, with the facts as its `extra_files`."""
    content = io.BytesIO()  # where a file cannot be written, torch would abort the process
    torch.export.save(program, content, extra_files=facts)
    path.write_bytes(content.getbuffer())


def write_onnx(program: ExportedProgram, facts: dict[str, str], path: Path) -> None:
    """Write an ONNX file with the program's inputs, the outputs `probs` and `logits`, and the facts as its metadata.

    Raises:
        SettingsError: The packages for ONNX are not installed.
    """
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise SettingsError(f"{path} needs {' and '.join(missing)}: pip install 'tailmatch[export]'")
    inputs = [str(name) for name in program.graph_signature.user_inputs]
    made = torch.onnx.export(
        program,
        input_names=inputs,
        output_names=["probs", "logits"],
        # This only names the dimension, which all inputs share; the program makes it dynamic.
        dynamic_shapes={name: {0: "batch"} if name == inputs[0] else None for name in inputs},
        dynamo=True,
        verbose=False,
    )
    if made is None:
        raise SettingsError(f"torch made no ONNX program for {path}")
    made.model.metadata_props.update(facts)
    made.save(path)


WRITERS = {ONNX: write_onnx, PROGRAM: write_program}


def facts_of(class_names: Sequence[str], image_size: Sequence[int], network: Network) -> dict[str, str]:
    """Return the metadata of an exported file but for `checkpoint`, each entry as JSON.

    The entries are `class_names` in the order of the outputs, `image_size` (height and width), and, for a network that
    uses categories, the values of each level as `categories`.
    """
    facts: dict[str, Any] = {"class_names": list(class_names), "image_size": list(image_size)}
    if network.vocabulary is not None:
        facts["categories"] = {level["name"]: level["values"] for level in network.vocabulary}
    return {name: json.dumps(fact) for name, fact in facts.items()}


def export(
    trained: str | ImageClassifier, out: str | Path, image_size: Sequence[int] | None = None, overwrite: bool = False
) -> None:
    """Write the evaluated network of a checkpoint or of a method, with its preprocessing.

    The file only appears when it is complete. That of an ONNX network above 2 GB has its weights in a second file.

    Args:
        trained: Path or URL of a checkpoint of this package, or a method that was trained or loaded.
        out: Path of the file, `.onnx` or `.pt2`.
        image_size: Height and width of the images in pixels; None takes those of the training images.
        overwrite: Whether to replace the file if it exists; otherwise that is an error.

    Raises:
        SettingsError: The checkpoint, the method, the size or the file's suffix is wrong, or the file exists.
        NotFiniteError: Weights are NaN or infinite.
        OSError: The system refuses to write the file.
    """
    out = Path(out)
    if out.suffix not in WRITERS:
        raise SettingsError(f"{out} names no format: it must end in {ONNX} (ONNX) or {PROGRAM} (torch.export)")
    check_free(out, overwrite)
    if isinstance(trained, ImageClassifier):
        check_classifies_by_network(trained, f"model, a {type(trained).__name__},")
        check_weights(trained.network, infinite_by_design(trained.network))
        network, names, size = trained.network, trained.class_names, image_size or trained.image_size
        origin = {}
        if trained.blank is not None or adapter_tensors(network):
            network = copy.deepcopy(network)
            merge_adapters(network)
            debias_head(network, trained.blank, size, f"the {type(trained).__name__}")
    else:
        source = read_checkpoint(trained)
        network = trained_network(source, trained, image_size)
        names, size = list(source.class_names or ()), image_size or source.image_size
        origin = {CHECKPOINT: json.dumps(file_digest(local_file(str(trained))))}
    if size is None or min(size) < 1:
        raise SettingsError(f"image_size is {size}: give height and width of the images, as in --image_size 32 32")
    with evaluation_mode(network):
        program, facts = exported(network, size), facts_of(names, size, network) | origin
    out.parent.mkdir(parents=True, exist_ok=True)
    with naming(out), TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.", suffix=".partial") as folder:
        WRITERS[out.suffix](program, facts, Path(folder, out.name))
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == out.name):  # the one that appears last
            os.replace(file, out.with_name(file.name))
