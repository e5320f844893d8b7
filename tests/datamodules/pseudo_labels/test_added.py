"""Unlabeled images that join the labeled set: which ones, and what a data module makes of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tailmatch import load
from tailmatch.datamodules import AddedLabels, Digits, ListedCounts, SymmetricNoise
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.pseudo_labels.added import rank_shares
from tailmatch.datamodules.pseudo_labels.columns import in_memory
from tailmatch.datamodules.pseudo_labels.files import write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabels
from tailmatch.lightning_modules import ACR, FixMatch
from tailmatch.lightning_modules.pseudo_labels.class_prior import unlabeled_totals
from tests.contract import at_epoch_ends, prepare, run

LABELED, UNLABELED = [6, 5, 4, 3, 3, 3, 3, 2, 2, 2], [4] * 10


def digits(**arguments: Any) -> Digits:
    data = Digits(
        image_size=8, class_counts=ListedCounts(LABELED, UNLABELED), test_holdout=3, val_holdout=0, seed=0, **arguments
    )
    data.setup("fit")
    return data


def write(folder: Path, data: Digits, rows: ImageRows, labels: list[int]) -> str:
    path = folder / "labels.npz"
    confidence = np.linspace(1, 0.5, len(rows), dtype=np.float32)
    columns = {"key": rows.rows.numpy(), "label": np.array(labels), "confidence": confidence}
    write_pseudo_labels(
        path,
        {name: in_memory(array) for name, array in columns.items()},
        Origin.of(rows.images, data.class_names),
    )
    return str(path)


def test_shares_mirror_the_ranks_of_the_classes() -> None:
    assert rank_shares(torch.tensor([100, 10, 1]), 1 / 3).tolist() == pytest.approx([0.2154, 0.4642, 1], abs=1e-4)
    assert rank_shares(torch.tensor([10, 1, 100]), 1 / 3).tolist() == pytest.approx([0.4642, 1, 0.2154], abs=1e-4)
    assert rank_shares(torch.tensor([7, 7, 7]), 0.7).tolist() == [1, 1, 1]


def test_of_each_class_the_most_confident_are_added() -> None:
    label = torch.tensor([0] * 10 + [1] * 5 + [2, -1])
    confidence = torch.tensor([0.1, 0.9, 0.3, 0.8, 0.5, 0.6, 0.4, 0.2, 0.7, 0.0] + [0.5] * 5 + [0.01, 0.0])
    labels, counts = PseudoLabels(label, confidence), torch.tensor([100, 10, 1])
    # floor(10 * 0.2154) = 2, floor(5 * 0.4642) = 2 of equal confidence, the first, and the only one of class 2
    assert AddedLabels("a.npz", 1 / 3).choose(labels, counts).tolist() == [1, 3, 10, 11, 15]
    assert AddedLabels("a.npz").choose(labels, counts).tolist() == list(range(16))
    assert AddedLabels("a.npz", 0.0).choose(labels, counts).tolist() == list(range(16))


def test_added_images_are_labeled_ones_and_stay_unlabeled(tmp_path: Path) -> None:
    plain = digits(include_labeled_in_unlabeled=True)
    labels = [0] * 33 + [9] * 40  # the rows of labeled images are not used
    file = write(tmp_path, plain, plain.unlabeled, labels)
    data = digits(include_labeled_in_unlabeled=True, added_labels=AddedLabels(file, 1.0))
    assert torch.equal(data.unlabeled.rows, plain.unlabeled.rows) and torch.equal(data.pool.rows, plain.pool.rows)
    assert torch.equal(data.annotated.rows, plain.labeled.rows) and data.labeled_in_front == 33
    added = data.labeled.rows[33:]
    assert torch.equal(added, plain.unlabeled.rows[33:73])  # of the rarest class, all
    batch = data.labeled.__getitems__([0, 40])
    assert batch["target"].tolist() == [int(plain.labeled.targets[0]), 9]
    assert data.class_counts == [*LABELED[:9], 42] and data.annotated_counts == LABELED
    assert data.labeled.truth is None and data.class_count_table()["labeled"][9] == 42
    assert unlabeled_totals(None, data).tolist() == pytest.approx(unlabeled_totals(None, plain).tolist())
    assert data.state_dict()["split"] == plain.state_dict()["split"]


def test_a_method_trains_on_them_and_a_resume_needs_the_same_ones(tmp_path: Path) -> None:
    file = write(tmp_path, digits(), digits().unlabeled, [9] * 40)
    trainer, model, _ = prepare(FixMatch, tmp_path, at_epoch_ends(tmp_path), max_steps=2, limit_val_batches=0)
    streams = {"labeled_batch_size": 6, "unlabeled_ratio": 2, "steps_per_epoch": 1}
    trainer.fit(model, digits(added_labels=AddedLabels(file, 1.0), **streams))
    assert model.class_counts.tolist() == [*LABELED[:9], 42]
    model = load(str(tmp_path / "last.ckpt"))
    assert isinstance(model, FixMatch) and model.annotated_counts.tolist() == LABELED
    trainer.test(model, digits(), verbose=False, ckpt_path=tmp_path / "last.ckpt")
    tested = model.evaluations["test"]  # class 9 still is one of few labels
    assert tested.scalars["few"] == tested.recall[7:].mean() and model.annotated_counts.tolist() == LABELED
    for added in (None, AddedLabels(file, 0.0)):
        trainer, model, _ = prepare(FixMatch, tmp_path, max_steps=3, limit_val_batches=0)
        write(tmp_path, digits(), digits().unlabeled, [8] + [9] * 39)
        with pytest.raises(ValueError, match="trained with other added_labels than the data has now"):
            trainer.fit(model, digits(added_labels=added, **streams), ckpt_path=tmp_path / "last.ckpt")


def test_what_is_refused(tmp_path: Path) -> None:
    plain = digits()
    with pytest.raises(ValueError, match="added_labels and pseudo_labels are both given"):
        digits(added_labels=AddedLabels("a.npz"), pseudo_labels="b.npz")
    with pytest.raises(ValueError, match="added_labels and label_noise are both given"):
        digits(added_labels=AddedLabels("a.npz"), label_noise=SymmetricNoise(0.1))
    with pytest.raises(ValueError, match="added_labels: alpha is -1"):
        AddedLabels("a.npz", -1.0)
    with pytest.raises(FileNotFoundError, match="no pseudo-label file"):
        digits(added_labels=AddedLabels(str(tmp_path / "none.npz")))
    file = write(tmp_path, plain, plain.test, [0] * 30)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"added_labels .*labels.npz does not fit the data: 30 of its 30 images"):
        digits(added_labels=AddedLabels(file))
    file = write(tmp_path, plain, plain.labeled, [0] * 33)
    with pytest.raises(ValueError, match="no image is added; alpha is None"):
        digits(added_labels=AddedLabels(file))


def test_the_unlabeled_images_of_acr_begin_with_the_given_labels(tmp_path: Path) -> None:
    plain = digits(include_labeled_in_unlabeled=True)
    file = write(tmp_path, plain, plain.unlabeled, [0] * 73)
    trainer = run(ACR, tmp_path, max_steps=1, limit_val_batches=0)
    data, model = digits(include_labeled_in_unlabeled=True, added_labels=AddedLabels(file)), trainer.lightning_module
    trainer.datamodule = data  # type: ignore[attr-defined]
    assert isinstance(model, ACR)
    model.setup("fit")
    assert len(data.labeled) == 73 and model.labeled_in_front == 33
