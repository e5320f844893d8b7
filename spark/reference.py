"""The reference of a stream: predictions of the same checkpoint on images that have not drifted."""

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from tailmatch.callbacks.writers.pseudo_labels import checkpoint_digest
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts
from tailmatch.lightning_modules.inference.drift import LEAST_EXPECTED, Counts
from tailmatch.lightning_modules.inference.export import CHECKPOINT, PROGRAM

ADVICE = "tailmatch predict --ckpt_path best.ckpt --data.predict_set val --output reference.npz"


def read_reference(path: Path, model: str, class_names: list[str], digests: set[str]) -> Counts:
    """Count the labels of a pseudo-label file, or of a folder of `tailmatch label`.

    Args:
        path: The file or folder.
        model: The model of the stream, for messages.
        class_names: The names of its K classes.
        digests: The digests by which a file names this model.

    Returns:
        `int64 [K]`.

    Raises:
        MissingFileError: There is no such file.
        SettingsError: The file is no pseudo-label file, or of another checkpoint or of other classes, or too small.
    """
    if not path.exists():
        raise MissingFileError(f"there is no reference {path}; `{ADVICE}` writes one")
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        raise SettingsError(f"reference is {path}, a table, which does not say its checkpoint; make one by `{ADVICE}`")
    parts = PseudoLabelParts.open(path)
    if parts.origin.class_names != class_names:
        raise SettingsError(
            f"reference {path} is of other classes: {parts.origin.class_names[:10]}, and {model} has {class_names[:10]}"
        )
    if parts.origin.checkpoint not in digests:
        there, here = parts.origin.checkpoint[:12] or "(none)", ", ".join(sorted(digest[:12] for digest in digests))
        again = ", or export it again, if it is an export of this checkpoint" if model.endswith(PROGRAM) else ""
        raise SettingsError(
            f"reference {path} was not predicted by {model}: it names the checkpoint {there}, and this is {here}; make "
            f"it by `{ADVICE}`{again}"
        )
    counts = np.zeros(len(class_names), np.int64)
    for chunk in parts.chunks():
        counts += np.bincount(chunk.label.astype(np.int64), minlength=len(class_names))
    if counts.sum() < 2 * LEAST_EXPECTED:
        raise SettingsError(f"reference {path} has {int(counts.sum())} labels, too few to compare with")
    return counts


def digests_of(model: str) -> set[str]:
    """Return the digests by which a pseudo-label file may name a model: its own, and that of an export's checkpoint."""
    own = checkpoint_digest(model)
    if Path(model).suffix != PROGRAM:
        return {own}
    with ZipFile(model) as archive:
        entries = [name for name in archive.namelist() if name.endswith(f"/extra/{CHECKPOINT}")]
        return {own, *(str(json.loads(archive.read(entry))) for entry in entries)}
