"""Self-training's loss worked by hand on a network whose logits are the images, and where its labels come from."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from torch import Tensor
from torch.nn import functional

from tailmatch.callbacks import SelfTrainingReport
from tailmatch.datamodules import Digits, ListedCounts, PairNoise
from tailmatch.datamodules.pseudo_labels.columns import in_memory, key_column
from tailmatch.datamodules.pseudo_labels.files import write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabels
from tailmatch.lightning_modules import FixMatch, SelfTraining, Supervised
from tailmatch.lightning_modules.losses import LDAM, CrossEntropy, Focal, InverseWeights
from tailmatch.lightning_modules.networks import CifarResNet
from tests.lightning_modules.pixel_network import PixelNetwork

CLASSES = 3


def images(rows: Tensor) -> Tensor:
    return rows[:, None, None, :].expand(-1, 3, 1, -1)


def student(world_size: int = 1, rank: int = 0, **kwargs: Any) -> SelfTraining:
    method = SelfTraining(num_classes=CLASSES, network=PixelNetwork, **kwargs)
    trainer = SimpleNamespace(
        world_size=world_size, global_rank=rank, is_global_zero=False, loggers=[], global_step=0, current_epoch=0
    )
    method._trainer = trainer  # type: ignore[assignment]
    method.track = lambda **values: None  # type: ignore[method-assign]
    method.class_counts.copy_(torch.tensor([4, 2, 1]))
    return method


LABELED, LABELS = torch.tensor([[1.0, 0, 0], [0.5, 2, -1]]), torch.tensor([0, 2])
UNLABELED = torch.tensor([[3.0, 1, 0], [0, 0.5, 2], [1, -1, 0]])
PSEUDO = PseudoLabels(
    torch.tensor([0, 1, 1, 2]),  # of images 0 to 3
    torch.tensor([0.9, 0.4, 0.8, 0.95]),
    torch.tensor([[0.9, 0.1, 0], [0.3, 0.4, 0.3], [0.1, 0.8, 0.1], [0, 0.05, 0.95]]),
)
INDEX = torch.tensor([2, 0, 1])  # of the three unlabeled images of the batch: labels 1, 0, 1


def loss(method: SelfTraining, pseudo: PseudoLabels | None = PSEUDO, labeled: PseudoLabels | None = None) -> float:
    if pseudo is not None:
        method.take_pseudo_labels(pseudo, labeled)
    batch = {
        "labeled": {"weak": images(LABELED), "target": LABELS, "index": torch.tensor([5, 3])},
        "unlabeled": {"view": images(UNLABELED), "index": INDEX},
    }
    return method.training_step(batch, 0).item()


def joint() -> tuple[Tensor, Tensor]:
    return torch.cat([LABELED, UNLABELED]), torch.tensor([0, 2, 1, 0, 1])


def test_all_labels_at_weight_one_give_the_mean_over_the_union_as_the_authors_code() -> None:
    logits, target = joint()
    assert loss(student()) == pytest.approx(functional.cross_entropy(logits, target).item(), rel=1e-6)


def test_weight_and_threshold_by_hand() -> None:
    # Image 1 (0.4) is not selected: two labeled images and two of weight 0.5.
    logits, target = joint()
    each = functional.cross_entropy(logits, target, reduction="none").tolist()
    expected = (each[0] + each[1] + 0.5 * (each[2] + each[3])) / 3
    assert loss(student(unlabeled_weight=0.5, threshold=0.5)) == pytest.approx(expected, rel=1e-6)
    assert each[0] == pytest.approx(-math.log(math.e / (math.e + 2)), rel=1e-6)
    assert loss(student(top_k_per_class=1)) == pytest.approx((sum(each) - each[4]) / 4, rel=1e-6)
    assert loss(student(unlabeled_weight=0.0)) == pytest.approx((each[0] + each[1]) / 2, rel=1e-6)


def test_before_the_first_labels_the_labeled_images_teach_alone() -> None:
    expected = functional.cross_entropy(LABELED, LABELS).item()
    assert loss(student(), pseudo=None) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_soft_labels(smoothing: float) -> None:
    assert PSEUDO.probs is not None
    target = torch.cat([functional.one_hot(LABELS, 3).float(), PSEUDO.probs[INDEX]])
    expected = functional.cross_entropy(joint()[0], target, label_smoothing=smoothing).item()
    assert loss(student(soft=True, loss=CrossEntropy(smoothing))) == pytest.approx(expected, rel=1e-6)


def test_soft_labels_that_are_one_hot_are_hard_labels_under_every_weight() -> None:
    one_hot = PseudoLabels(PSEUDO.label, PSEUDO.confidence, functional.one_hot(PSEUDO.label, 3).float())
    settings: dict[str, Any] = {"unlabeled_weight": 0.3, "threshold": 0.5, "class_weights": InverseWeights()}
    hard, soft = (student(loss=CrossEntropy(0.1), soft=soft, **settings) for soft in (False, True))
    assert loss(soft, one_hot) == pytest.approx(loss(hard, one_hot), rel=1e-6)


def test_soft_labels_under_class_weights_by_hand() -> None:
    weights = torch.tensor([3.0, 1.0, 2.0])
    logits, probs = torch.tensor([[1.0, 2, 0]]), torch.tensor([[0.2, 0.5, 0.3]])
    each = (-logits.log_softmax(dim=1))[0].tolist()
    expected = (0.6 * each[0] + 0.5 * each[1] + 0.6 * each[2]) / (0.6 + 0.5 + 0.6)
    assert CrossEntropy().mean(logits, probs, weights).item() == pytest.approx(expected, rel=1e-6)


def test_class_weights_follow_the_counts_of_both_sets() -> None:
    method = student(class_weights=InverseWeights(), threshold=0.5)
    method.class_weights.active = lambda method: True  # type: ignore[union-attr,method-assign]
    logits, target = joint()
    counts = torch.tensor([4 + 1, 2 + 1, 1 + 1])  # images 0, 2 and 3 are selected: classes 0, 1, 2
    keep = [0, 1, 2, 3]
    expected = functional.cross_entropy(logits[keep], target[keep], weight=1.0 / counts).item()
    assert loss(method) == pytest.approx(expected, rel=1e-6)


def test_margins_follow_the_counts_of_both_sets() -> None:
    network = partial(CifarResNet, depth=8, cosine_scale=10.0)
    method = SelfTraining(num_classes=3, network=network, loss=LDAM(max_margin=0.5))
    method._trainer = student()._trainer
    method.class_counts.copy_(torch.tensor([14, 15, 1]))
    method.take_pseudo_labels(PSEUDO)  # and 1, 2, 1 more
    expected = [10 * 0.5 * (2 / n) ** 0.25 for n in (15, 17, 2)]
    assert isinstance(method.loss, LDAM) and method.loss.margins.tolist() == pytest.approx(expected, rel=1e-6)
    assert method.class_counts.tolist() == [14, 15, 1]  # what evaluation reports by stays the labeled counts


def test_focal_weighs_samples_outside_and_classes_inside() -> None:
    logits, target = joint()
    weights, class_weights = torch.tensor([1.0, 1, 0.5, 0, 2]), torch.tensor([2.0, 1, 0.5])
    cross = functional.cross_entropy(logits, target, weight=class_weights, reduction="none")
    each = (1 - torch.exp(-cross)) ** 2 * cross
    expected = (weights * each).sum() / weights.sum()
    assert Focal(2.0).mean(logits, target, class_weights, weights).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mixup_mixes_targets_with_their_weights() -> None:
    method = student(mixup=1.0, threshold=0.5)
    torch.manual_seed(3)
    mixed = loss(method)
    torch.manual_seed(3)
    concentration = torch.tensor(1.0)
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    share, partner = max(share, 1 - share), torch.randperm(5)
    rows, target = joint()
    weights = torch.tensor([1.0, 1, 1, 1, 0])
    logits = share * rows + (1 - share) * rows[partner]

    def mean(target: Tensor, weights: Tensor) -> Tensor:
        return (functional.cross_entropy(logits, target, reduction="none") * weights).sum() / weights.sum()

    expected = share * mean(target, weights) + (1 - share) * mean(target[partner], weights[partner])
    assert mixed == pytest.approx(expected.item(), rel=1e-5)


def test_each_process_keeps_the_rows_of_its_images() -> None:
    method = student(world_size=2, rank=1, threshold=0.5)
    method.take_pseudo_labels(PSEUDO)
    assert method._target is not None and method._target.tolist() == [1, 2]  # images 1 and 3
    assert method._weights.tolist() == [0.0, 1.0] and method.selected_share.item() == 0.75


# Seven labeled images, of which the batch has 5 and 3, labels 0 and 2; the teacher says 1 of the first, with 0.8.
GIVEN = torch.tensor([0, 0, 0, 2, 1, 0, 1])
TEACHER = PseudoLabels(
    torch.tensor([0, 0, 0, 0, 1, 1, 2]),
    torch.tensor([0.9, 0.9, 0.9, 0.6, 0.9, 0.8, 0.9]),
    functional.one_hot(torch.tensor([0, 0, 0, 0, 1, 1, 2]), 3).float() * 0.5 + 1 / 6,
)


def relabeling_student(**kwargs: Any) -> SelfTraining:
    method = student(relabel_threshold=0.7, **kwargs)
    labeled = SimpleNamespace(targets=GIVEN, truth=None)
    method._trainer.datamodule = SimpleNamespace(labeled=labeled)  # type: ignore[union-attr]
    return method


def test_a_confident_teacher_replaces_given_labels() -> None:
    method = relabeling_student()
    logits, target = torch.cat([LABELED, UNLABELED]), torch.tensor([1, 2, 1, 0, 1])
    assert loss(method, labeled=TEACHER) == pytest.approx(functional.cross_entropy(logits, target).item(), rel=1e-6)
    assert method._relabeled is not None and method._relabeled.tolist() == [0, 0, 0, 2, 1, 1, 2]
    # A later labeling begins with the given labels again: what it does not say is not changed any more.
    method.take_pseudo_labels(PSEUDO, PseudoLabels(torch.full((7,), 1), torch.linspace(0.1, 0.7, 7)))
    assert method._relabeled.tolist() == [0, 0, 0, 2, 1, 0, 1]


def test_soft_labels_replace_given_ones_too() -> None:
    assert PSEUDO.probs is not None and TEACHER.probs is not None
    labeled = torch.stack([TEACHER.probs[5], torch.eye(3)[2]])
    expected = functional.cross_entropy(joint()[0], torch.cat([labeled, PSEUDO.probs[INDEX]])).item()
    assert loss(relabeling_student(soft=True), labeled=TEACHER) == pytest.approx(expected, rel=1e-6)


def test_class_weights_follow_the_replaced_labels() -> None:
    method = relabeling_student(class_weights=InverseWeights(), world_size=2, rank=1)
    method.take_pseudo_labels(PSEUDO, TEACHER)
    counts = torch.tensor([3 + 1, 2 + 2, 2 + 1])  # replaced labels 0 0 0 2 1 1 2, pseudo-labels 0 1 1 2
    expected = (1 / counts) / (1 / counts).mean()
    torch.testing.assert_close(method.label_weights, expected)
    assert method._relabeled is not None and len(method._relabeled) == 7  # every process has all of them


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relabel_threshold": 1.5}, r"relabel_threshold is 1.5; it must be in \[0, 1\]"),
        ({"soft": True, "loss": Focal()}, "soft is true and the loss is Focal"),
        ({"unlabeled_weight": -1.0}, "unlabeled_weight is -1.0; it must be at least 0"),
        ({"threshold": 1.5}, r"threshold is 1.5; it must be in \[0, 1\]"),
        ({"top_k_per_class": 0}, "top_k_per_class is 0; it must be at least 1"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        student(**arguments)


def test_soft_labels_need_probs_and_a_selection_of_nothing_warns() -> None:
    with pytest.raises(ValueError, match="the pseudo-labels have no probs"):
        student(soft=True).take_pseudo_labels(PseudoLabels(PSEUDO.label, PSEUDO.confidence))
    with pytest.warns(UserWarning, match="none of 4 pseudo-labels is selected: threshold is 1.0"):
        student(threshold=1.0).take_pseudo_labels(PSEUDO)


# With a data module


def digits(pseudo_labels: Path | None = None, **kwargs: Any) -> Digits:
    return Digits(
        class_counts=ListedCounts([4] * 10, [6] * 10),
        labeled_batch_size=6,
        unlabeled_ratio=2,
        steps_per_epoch=2,
        pseudo_labels=None if pseudo_labels is None else str(pseudo_labels),
        seed=0,
        **kwargs,
    )


def write(path: Path, label: int, of: str = "unlabeled") -> Path:
    """A file that gives every image of a set one label."""
    data = digits()
    data.setup("predict")
    rows = getattr(data, of)
    pool, count = rows.images, len(rows)
    columns = {
        "key": key_column(rows, count),
        "label": in_memory(np.full(count, label)),
        "confidence": in_memory(np.ones(count, np.float32)),
    }
    write_pseudo_labels(path, columns, Origin(data.class_names, "", pool.fingerprint(), len(pool.pixels)))
    return path


def fit(
    method: type[Supervised] | type[FixMatch], folder: Path, data: Digits, ckpt: Path | None = None, **kwargs: Any
) -> Trainer:
    seed_everything(0)
    trainer = Trainer(
        max_epochs=2 if ckpt else 1, accelerator="cpu", logger=False, use_distributed_sampler=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[SelfTrainingReport()],
    )  # fmt: skip
    trainer.fit(method(num_classes=10, network=partial(CifarResNet, depth=8), **kwargs), data, ckpt_path=ckpt)
    return trainer


def test_labels_of_a_file_reach_the_method_and_a_resume_with_others_is_refused(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.npz", 3)
    trainer = fit(SelfTraining, tmp_path, digits(labels))
    model = trainer.lightning_module
    assert isinstance(model, SelfTraining) and model._target is not None and model._target.tolist() == [3] * 60
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    fit(SelfTraining, tmp_path, digits(labels), tmp_path / "one.ckpt")
    with pytest.raises(ValueError, match="was trained with other pseudo_labels than .*labels.npz has now"):
        fit(SelfTraining, tmp_path, digits(write(labels, 4)), tmp_path / "one.ckpt")


def test_labels_that_nobody_reads_or_nobody_gives_are_refused(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.npz", 3)
    for method in (Supervised, FixMatch):
        with pytest.raises(ValueError, match=f"{method.__name__} does not train on them"):
            fit(method, tmp_path, digits(labels))
    with pytest.raises(ValueError, match="SelfTraining has no pseudo-labels"):
        fit(SelfTraining, tmp_path, digits())


def test_a_file_of_the_pool_relabels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write(tmp_path / "labels.npz", 3, of="pool")
    data = digits(labels, label_noise=PairNoise(1.0, {"4": "3"}))
    trainer = fit(SelfTraining, tmp_path, data, relabel_threshold=0.9)
    model = trainer.lightning_module
    assert isinstance(model, SelfTraining) and model._relabeled is not None and model._target is not None
    assert model._relabeled.tolist() == [3] * 40 and model._target.tolist() == [3] * 60
    assert "relabeled: 32 of 40 labeled images (0 -> 3 4, 1 -> 3 4, 2 -> 3 4, 5 -> 3 4, 6 -> 3 4, ...), 0 of" in (
        capsys.readouterr().out
    )
    report = (tmp_path / "relabeled.csv").read_text().splitlines()
    assert report[0] == "index,key,given,predicted,confidence,true" and len(report) == 33
    assert report[1] == f"0,{int(data.labeled.rows[0])},0,3,1.000000,0"
    trainer.save_checkpoint(tmp_path / "one.ckpt")

    def resume(file: Path) -> None:
        data = digits(file, label_noise=PairNoise(1.0, {"4": "3"}))
        fit(SelfTraining, tmp_path, data, tmp_path / "one.ckpt", relabel_threshold=0.9)

    resume(labels)
    with pytest.raises(ValueError, match="was trained with other pseudo_labels"):
        resume(write(tmp_path / "less.npz", 3))


def test_a_file_that_does_not_fit_the_threshold_is_refused(tmp_path: Path) -> None:
    pool, unlabeled = write(tmp_path / "pool.npz", 3, of="pool"), write(tmp_path / "unlabeled.npz", 3)
    with pytest.raises(ValueError, match="pool.npz has images that are labeled here, and they would not be used"):
        fit(SelfTraining, tmp_path, digits(pool))
    with pytest.raises(ValueError, match="unlabeled.npz has no labeled images: predict them too"):
        fit(SelfTraining, tmp_path, digits(unlabeled), relabel_threshold=0.9)
    together = digits(unlabeled, include_labeled_in_unlabeled=True)
    with pytest.raises(ValueError, match="unlabeled.npz has no labeled images: predict them too"):
        fit(SelfTraining, tmp_path, together, relabel_threshold=0.9)
    fit(SelfTraining, tmp_path, digits(pool, include_labeled_in_unlabeled=True))
