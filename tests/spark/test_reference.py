import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.pseudo_labels.columns import in_memory
from tailmatch.datamodules.pseudo_labels.files import write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin
from tailmatch.lightning_modules.checkpoints.remote_files import file_digest
from tailmatch.spark.reference import digests_of, read_reference

NAMES = ["cat", "dog", "owl"]


def reference(path: Path, labels: list[int], checkpoint: str = "ab", names: list[str] = NAMES) -> Path:
    columns = {
        "key": in_memory(np.arange(len(labels))),
        "label": in_memory(np.array(labels)),
        "confidence": in_memory(np.ones(len(labels), np.float32)),
    }
    write_pseudo_labels(path, columns, Origin(names, checkpoint, "f", len(labels)))
    return path


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_labels_of_validation_images_are_counted(tmp_path: Path, suffix: str) -> None:
    path = reference(tmp_path / f"reference{suffix}", [0] * 7 + [2] * 5)
    counts = read_reference(path, "best.ckpt", NAMES, {"ab", "cd"})
    assert counts.tolist() == [7, 0, 5]


def test_what_is_no_reference_of_the_model_is_refused(tmp_path: Path) -> None:
    path = reference(tmp_path / "reference.npz", [0] * 12)
    with pytest.raises(SettingsError, match="not predicted by best.ckpt.* ab, and this is cd.*predict_set val"):
        read_reference(path, "best.ckpt", NAMES, {"cd"})
    with pytest.raises(SettingsError, match=r"other classes: .*'owl'\], and best.ckpt has \['cat', 'dog'\]"):
        read_reference(path, "best.ckpt", NAMES[:2], {"ab"})
    with pytest.raises(MissingFileError, match="no reference .*predict_set val"):
        read_reference(tmp_path / "other.npz", "best.ckpt", NAMES, {"ab"})
    table = tmp_path / "reference.csv"
    table.write_text("key,label\n")
    with pytest.raises(SettingsError, match="a table, which does not say its checkpoint"):
        read_reference(table, "best.ckpt", NAMES, {"ab"})
    with pytest.raises(SettingsError, match="has 3 labels, too few"):
        read_reference(reference(tmp_path / "few.npz", [0, 1, 2]), "best.ckpt", NAMES, {"ab"})


def test_an_export_goes_by_its_own_digest_and_by_that_of_its_checkpoint(tmp_path: Path) -> None:
    program, checkpoint = tmp_path / "a.pt2", tmp_path / "a.ckpt"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("archive/extra/checkpoint", json.dumps("ab"))
    checkpoint.write_bytes(b"weights")
    assert digests_of(str(program)) == {file_digest(program), "ab"}
    assert digests_of(str(checkpoint)) == {file_digest(checkpoint)}
