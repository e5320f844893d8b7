"""The program that labels images on other machines: of a checkpoint, or of a `.pt2` file."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.pixels import check_side
from tailmatch.lightning_modules.checkpoints.remote_files import local_file
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import TrainedCheckpoint, read_checkpoint
from tailmatch.lightning_modules.inference.arrow_labels import WorkerModel
from tailmatch.lightning_modules.inference.class_paths import public_path
from tailmatch.lightning_modules.inference.export import PROGRAM, exported, facts_of
from tailmatch.lightning_modules.inference.trained_network import trained_network
from tailmatch.lightning_modules.inference.trust import trust_checkpoints

ADJUSTMENT = "tailmatch.callbacks.LogitAdjustment"


@dataclass(frozen=True)
class LabelProgram:
    """A program as `tailmatch export` writes it, for `WorkerModel.load`.

    Attributes:
        content: The content of a `.pt2` file.
        class_names: The names of the K classes.
        image_size: The height and width of the images in pixels.
        levels: The names of the category levels; none for a network of images alone.
        notes: What the user should know.
    """

    content: bytes
    class_names: list[str]
    image_size: tuple[int, int]
    levels: list[str]
    notes: tuple[str, ...] = ()


def label_program(model: str, image_size: int | None = None, trust: bool = False) -> LabelProgram:
    """Make the program of a checkpoint, or read one.

    Args:
        model: The path or URL of a checkpoint, or the path of a `.pt2` file of `tailmatch export`.
        image_size: The height and width of the images, for a checkpoint that does not say them.
        trust: Whether a checkpoint may name code outside this package. A `.pt2` file is code itself, and is only
            loaded with this.

    Raises:
        SettingsError: The file is missing or no such file, it does not classify by one network (a pre-training, an
            ensemble), its predictions are changed by a callback, or it does not say the size of its images.
    """
    if Path(model).suffix == PROGRAM:
        return _read_program(model, image_size, trust)
    with trust_checkpoints(trust):
        source = read_checkpoint(model)
        network = trained_network(source, model)
    _check_adjustment(source, model)
    size = _size(source.image_size, image_size, model)
    names = list(source.class_names or ())
    program = io.BytesIO()
    torch.export.save(exported(network, size), program, extra_files=facts_of(names, size, network))
    levels = [level["name"] for level in network.vocabulary or ()]
    return LabelProgram(program.getvalue(), names, (size[0], size[1]), levels, _notes(source))


def _read_program(path: str, image_size: int | None, trust: bool) -> LabelProgram:
    file = local_file(path)
    if not file.is_file():
        raise MissingFileError(f"there is no model {path}")
    if not trust:
        raise SettingsError(
            f"{path} is a program, which runs as torch reads it: add --trust_checkpoint true (in Python trust=True) if "
            "you made it with `tailmatch export` or trust its maker, or give the checkpoint (.ckpt), which is only data"
        )
    content = file.read_bytes()
    try:
        model = WorkerModel.load(content)
    except SettingsError as error:
        raise SettingsError(str(error).replace("the program", path, 1)) from error
    size = _size(list(model.image_size), image_size, path)
    return LabelProgram(content, list(model.class_names), (size[0], size[1]), list(model.categories))


def _size(own: Sequence[int] | None, given: int | None, path: str) -> Sequence[int]:
    if own is None:
        if given is None:
            raise SettingsError(f"{path} does not say the size of its images: give --image_size, in pixels")
        check_side("image_size", given)
        return [given, given]
    if given is not None and [given, given] != list(own):
        raise SettingsError(f"image_size is {given}, and {path} is for {own[0]} x {own[1]} pixels: leave it out")
    return own


def _check_adjustment(source: TrainedCheckpoint, path: str) -> None:
    """Refuse a checkpoint whose predictions a callback of its run changes, as it would in `tailmatch predict`."""
    callbacks = (source.settings.get("trainer") or {}).get("callbacks") or []
    for entry in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(entry, dict) and public_path(str(entry.get("class_path"))) == ADJUSTMENT:
            raise SettingsError(
                f"the run of checkpoint {path!r} has LogitAdjustment, which changes its predictions and is no part of "
                "the network: label with `tailmatch predict`, or export the network without it (`tailmatch export`) "
                "and label with the .pt2 file"
            )


def _notes(source: TrainedCheckpoint) -> tuple[str, ...]:
    precision = (source.settings.get("trainer") or {}).get("precision")
    if precision in (None, 32, "32", "32-true"):
        return ()
    return (
        f"the run of this checkpoint has precision {precision}, and labels are computed in float32: they are those of "
        "`tailmatch predict` with --trainer.precision 32-true",
    )
