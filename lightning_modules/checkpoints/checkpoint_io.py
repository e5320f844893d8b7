"""Write checkpoints without ever losing the previous one, and read those of a trainer."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.output_files import whole_file
from tailmatch.lightning_modules.checkpoints.weights import not_tensors, read_file

PARTS: dict[str, type] = {
    "state_dict": dict,
    "callbacks": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "class_names": list,
}
"""What a trainer reads from a checkpoint, and of which type each part is."""

NEEDED = ("state_dict", "pytorch-lightning_version", "epoch", "global_step")
"""What every checkpoint of a trainer has."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint plugin that writes next to the target and renames when the file is complete and on disk.

    So a kill at any moment leaves the previous checkpoint. (Lightning moves the file from a temporary folder, which on
    another file system is a copy that can be interrupted.) It only reads tensors and plain values, so no code in a file
    is ever executed. It only removes files that lie beside those that it saved: the names come from the state in the
    checkpoint that is resumed, and Lightning would remove any folder or URL that this state names.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folders: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Save `checkpoint` to a local `path`."""
        with whole_file(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)
        self._folders.add(Path(path).resolve().parent)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, if this plugin saves into its folder."""
        file = Path(path)
        if file.suffix == ".ckpt" and file.is_file() and file.resolve().parent in self._folders:
            file.unlink()

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the content of a checkpoint, on the CPU.

        Raises:
            SettingsError: `weights_only` is False, the file contains more than tensors and plain values, or it is no
                checkpoint of a trainer.
        """
        if weights_only is False:
            raise SettingsError("weights_only is false, and files with code in them are never read: leave it out")
        content: Any = read_file(str(path))
        if not isinstance(content, dict):
            raise SettingsError(
                f"checkpoint {path} is a {type(content).__name__}; it must be a checkpoint of a Trainer"
            )
        wrong: list[object] = [name for name, kind in PARTS.items() if not isinstance(content.get(name, kind()), kind)]
        wrong = wrong or not_tensors(content.get("state_dict", {}))
        missing = [name for name in NEEDED if name not in content]
        if missing or wrong:
            raise SettingsError(
                f"checkpoint {path} has {f'no {missing[0]}' if missing else f'{wrong[0]} of another type'}; it must be "
                "a whole checkpoint of a Trainer (weights alone: begin a training with them, --model.pretrained FILE)"
            )
        return content
