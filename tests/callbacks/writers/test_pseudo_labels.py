"""The pseudo-label writer: what it writes is what the network says, whatever the number of processes."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything

from tailmatch.callbacks import PseudoLabelWriter
from tailmatch.callbacks.writers.prediction_shards import merged_blocks
from tailmatch.callbacks.writers.pseudo_labels import checkpoint_digest, file_digest
from tailmatch.datamodules import Digits, LabeledFraction
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.lightning_modules import Ensemble, ImageClassifier, Supervised
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.trained_files import shaken, trained_file


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("chunk", [3, 6, 30])
def test_blocks_of_all_processes_come_in_order(processes: int, chunk: int, tmp_path: Path) -> None:
    rows = np.arange(22, dtype=np.float32).reshape(11, 2)
    blocks = [rows[start : start + 3] for start in range(0, 11, 3)]  # 3, 3, 3 and 2 rows
    files = [tmp_path / str(rank) for rank in range(processes)]
    for rank, file in enumerate(files):
        file.write_bytes(b"".join(block.tobytes() for block in blocks[rank::processes]))
    merged = list(merged_blocks(files, np.dtype(np.float32), (2,), total=11, block=3, chunk=chunk))
    assert np.array_equal(np.concatenate(merged), rows)
    assert [len(part) for part in merged[:-1]] == [chunk] * (len(merged) - 1)


def predict(folder: Path, *callbacks: Callback, model: ImageClassifier | None = None, **kwargs: Any) -> ImageClassifier:
    seed_everything(0)
    model = model or Supervised(num_classes=10, network=partial(CifarResNet, depth=8))
    data = Digits(class_counts=LabeledFraction(0.5), eval_batch_size=64)
    trainer = Trainer(
        accelerator="cpu", logger=False, default_root_dir=folder, use_distributed_sampler=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks), **kwargs,
    )  # fmt: skip
    trainer.predict(model, data, return_predictions=False)
    return model


def test_the_file_says_what_the_network_says(tmp_path: Path) -> None:
    model = predict(tmp_path, PseudoLabelWriter(probs=True))
    file = read_pseudo_labels(tmp_path / "pseudo_labels.npz")
    data = model.trainer.datamodule  # type: ignore[attr-defined]
    rows = data.unlabeled.rows
    assert file.key.tolist() == rows.tolist()
    assert file.origin.class_names == [str(k) for k in range(10)] and file.origin.checkpoint == ""
    with torch.no_grad():
        probs = model.eval()(to_float(data.unlabeled.images.pixels[rows])).softmax(dim=1).numpy()
    assert file.probs is not None and np.allclose(file.probs, probs, atol=1e-5)
    assert np.array_equal(file.label, file.probs.argmax(axis=1))
    assert np.array_equal(file.confidence, file.probs.max(axis=1))
    assert [path.name for path in tmp_path.iterdir()] == ["pseudo_labels.npz"]  # no parts are left


def test_an_existing_file_stays_unless_told_otherwise(tmp_path: Path) -> None:
    output = tmp_path / "labels.npz"
    output.write_bytes(b"mine")
    with pytest.raises(ValueError, match="labels.npz exists"):
        predict(tmp_path, PseudoLabelWriter(str(output)))
    assert output.read_bytes() == b"mine"
    predict(tmp_path, PseudoLabelWriter(str(output), overwrite=True))
    assert read_pseudo_labels(output).probs is None


class Interrupt(Callback):
    def on_predict_batch_end(self, *args: Any) -> None:
        raise RuntimeError("interrupted")


def test_an_incomplete_prediction_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"128 of \d+ images were predicted, so no file was written"):
        predict(tmp_path, PseudoLabelWriter(), limit_predict_batches=2)
    with pytest.raises(RuntimeError, match="interrupted"):
        predict(tmp_path, PseudoLabelWriter(), Interrupt())
    assert not list(tmp_path.iterdir())


def test_a_file_of_an_ensemble_names_its_members_in_order(tmp_path: Path) -> None:
    names = [str(k) for k in range(10)]
    one, two = (
        trained_file(tmp_path / f"{k}.ckpt", shaken(CifarResNet(10, depth=8), k), {"depth": 8}, names) for k in (1, 2)
    )
    digests = {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in (one, two)}

    def recorded(*checkpoints: str) -> str:
        predict(tmp_path, PseudoLabelWriter(overwrite=True), model=Ensemble(10, list(checkpoints)))
        return read_pseudo_labels(tmp_path / "pseudo_labels.npz").origin.checkpoint

    assert recorded(one, two) == hashlib.sha256((digests[one] + digests[two]).encode()).hexdigest()
    assert recorded(two, one) == hashlib.sha256((digests[two] + digests[one]).encode()).hexdigest()
    assert recorded(one) not in (digests[one], "")


def test_a_file_of_a_checkpoint_names_it_by_path_or_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where a URL's file goes
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()
    assert checkpoint_digest(str(path)) == checkpoint_digest(path.as_uri()) == expected
    assert checkpoint_digest([path.as_uri()]) == hashlib.sha256(expected.encode()).hexdigest()


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * (1 << 20) + b"yz")
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
