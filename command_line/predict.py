"""Add to the configuration of `tailmatch predict`: facts of the checkpoint, and a writer."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback

from tailmatch.callbacks.writers.prediction_shards import PredictionShards
from tailmatch.callbacks.writers.predictions import PredictionWriter
from tailmatch.callbacks.writers.pseudo_labels import PseudoLabelWriter
from tailmatch.command_line.settings_of_checkpoint import is_vouched_for
from tailmatch.command_line.typed import Typed
from tailmatch.datamodules import ImageDataModule, LabeledUnlabeledDataModule, UnlabeledImages, UnlabeledTable
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.remote_files import local_file
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import TrainedCheckpoint, read_checkpoint
from tailmatch.lightning_modules.inference.class_paths import public_class, public_path
from tailmatch.lightning_modules.inference.trust import class_named


def take_facts(typed: Typed, settings: Any, checkpoint: Path | None) -> None:
    """Fill in arguments of images without labels from the checkpoint, or the first of several, unless they were typed.

    Args:
        typed: The command line.
        settings: The configuration of the subcommand; it is changed in place.
        checkpoint: The checkpoint of the command line. None: it names none.

    Raises:
        SettingsError: The subcommand needs labels, and the data has none.
    """
    kind = class_named(settings.data.class_path)
    if not issubclass(kind, UnlabeledImages):
        return
    if typed.subcommand != "predict":
        raise SettingsError(f"{typed.subcommand} needs labels, and {kind.__name__} has none: it is for predict alone")
    members = settings.model.init_args.get("checkpoints")
    source = str(checkpoint) if checkpoint is not None else members[0] if members else None
    if source is None:
        return
    arguments = settings.data.init_args
    facts = facts_of_data(read_checkpoint(source), kind, is_vouched_for(typed, local_file(source)))
    for name, value in facts.items():
        if arguments.get(name) is None:
            arguments[name] = value


def facts_of_data(source: TrainedCheckpoint, kind: type[UnlabeledImages], vouched: bool = False) -> dict[str, Any]:
    """Collect the arguments of images without labels that a checkpoint knows from its data; None for unknown ones.

    Args:
        source: The checkpoint.
        kind: The class of the data that is predicted.
        vouched: Whether a data class that is not of this package may be imported.
    """
    data = source.settings.get("data", {})
    flip = data.get("init_args", {}).get("horizontal_flip")
    if flip is None and "class_path" in data:
        found = public_class(public_path(data["class_path"]))
        with suppress(ValueError):  # a class of the user's that is not here
            found = class_named(data["class_path"]) if vouched else found
        flip = getattr(found, "horizontal_flip", None)
    size = source.image_size[0] if source.image_size else None
    facts = {"class_names": source.class_names, "image_size": size, "horizontal_flip": flip}
    if issubclass(kind, UnlabeledTable):
        facts["levels"] = [level["name"] for level in source.categories or ()]
    return facts


def writers(
    configured: Sequence[Callback], data: ImageDataModule, run_dir: Path, output: str | None, overwrite: bool
) -> list[PredictionShards]:
    """Make the writer of a prediction, unless the configuration has one: for its output, or else for its data.

    An output that cannot be written is refused here, before images are decoded.

    Args:
        configured: The callbacks of the configuration.
        data: The data to predict.
        run_dir: The folder of the run.
        output: The file to write, `.npz` for pseudo-labels and any other for a table. None: a default file in
            `run_dir`.
        overwrite: Whether to replace an existing file.

    Returns:
        The writer to add, in a list, which is empty if the configuration has one.

    Raises:
        SettingsError: Both the command line and the configuration ask for a writer, or the file cannot be written.
    """
    present = [callback for callback in configured if isinstance(callback, PredictionShards)]
    if present and (output is not None or overwrite):
        option = f"output is {output}" if output is not None else "overwrite is true"
        raise SettingsError(
            f"{option}, and the configuration has a {type(present[0]).__name__}: give it to that one, "
            "--trainer.callbacks.output FILE, --trainer.callbacks.overwrite true"
        )
    added: list[PredictionShards] = []
    if not present:
        trained_on = isinstance(data, LabeledUnlabeledDataModule)
        pseudo_labels = trained_on if output is None else Path(output).suffix == ".npz"
        added.append((PseudoLabelWriter if pseudo_labels else PredictionWriter)(output=output, overwrite=overwrite))
    for writer in present + added:
        writer.check_output(writer.path_in(run_dir))
    return added
