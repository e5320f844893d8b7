"""Wrong labels on purpose: how many, which, the same every time, and nowhere but in the labeled stream."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Trainer, seed_everything
from scipy.stats import binom, chisquare

from tailmatch.datamodules import Digits, LabeledFraction, ListedCounts, PairNoise, SymmetricNoise
from tailmatch.datamodules.splitting.label_noise import LabelNoise, noise_warnings
from tailmatch.lightning_modules import Supervised
from tailmatch.lightning_modules.networks import CifarResNet

NAMES = ["ant", "bee", "cow", "dog"]


def noisy(noise: LabelNoise, targets: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return noise(targets, NAMES, torch.Generator().manual_seed(seed))


def test_symmetric_noise_is_the_transition_matrix_of_patrini() -> None:
    targets = torch.arange(4).repeat_interleave(20_000)
    given = noisy(SymmetricNoise(0.3), targets)
    for k in range(4):
        counts = torch.bincount(given[targets == k], minlength=4)
        expected = [20_000 * (0.7 if j == k else 0.1) for j in range(4)]
        assert chisquare(counts.numpy(), expected).pvalue > 1e-4
    wrong = int((given != targets).sum())
    assert 1e-4 < binom.cdf(wrong, 80_000, 0.3) < 1 - 1e-4


def test_extremes_and_unknown_classes() -> None:
    targets = torch.arange(-1, 4).repeat(50)
    assert torch.equal(noisy(SymmetricNoise(0.0), targets), targets)
    for noise in (SymmetricNoise(1.0), PairNoise(1.0)):
        given = noisy(noise, targets)
        assert ((given == targets) == (targets < 0)).all() and 0 <= given[targets >= 0].min() <= given.max() <= 3


def test_a_larger_share_keeps_the_wrong_labels_of_a_smaller_one_and_a_longer_list_those_of_a_shorter() -> None:
    targets = torch.arange(4).repeat(100)
    few, many = noisy(SymmetricNoise(0.2), targets), noisy(SymmetricNoise(0.5), targets)
    assert torch.equal(few[few != targets], many[few != targets]) and (many != targets).sum() > (few != targets).sum()
    assert not torch.equal(few, noisy(SymmetricNoise(0.2), targets, seed=1))


def test_pairs_by_hand() -> None:
    targets = torch.tensor([0, 1, 2, 3, -1])
    assert noisy(PairNoise(1.0, {"ant": "cow", "cow": "ant"}), targets).tolist() == [2, 1, 0, 3, -1]
    assert noisy(PairNoise(1.0), targets).tolist() == [1, 2, 3, 0, -1]
    given = noisy(PairNoise(0.25, {"bee": "dog"}), torch.arange(4).repeat(4000))
    assert 850 < int((given == 3).sum()) - 4000 < 1150 and (given == 0).sum() == (given == 2).sum() == 4000


@pytest.mark.parametrize(
    ("noise", "names", "message"),
    [
        (lambda: SymmetricNoise(-0.1), NAMES, r"label_noise: share is -0.1; it must be in \[0, 1\]"),
        (lambda: SymmetricNoise(20), NAMES, r"share is 20; it must be in \[0, 1\]"),
        (lambda: SymmetricNoise(0.1), ["ant"], r"another class than \['ant'\]"),
        (lambda: PairNoise(0.1), ["ant"], r"another class than \['ant'\]"),
        (lambda: PairNoise(0.1, {"ant": "cat"}), NAMES, "'cat', and there is no such class; the classes are ant, bee"),
        (lambda: PairNoise(0.1, {"ant": "ant"}), NAMES, "'ant' mistaken for itself"),
        (lambda: PairNoise(0.1, {}), NAMES, "pairs is empty, so no label would change"),
    ],
)
def test_bad_arguments(noise: Any, names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        noise().check(names)


def test_noise_that_nothing_can_be_learned_from_is_said() -> None:
    assert not noise_warnings(SymmetricNoise(0.74), 4) and not noise_warnings(PairNoise(0.49), 4)
    assert "from 0.75 on the true class is not the most frequent" in noise_warnings(SymmetricNoise(0.75), 4)[0]
    assert "from 0.5 on" in noise_warnings(PairNoise(0.5), 4)[0]


def digits(noise: LabelNoise | None = None, **kwargs: Any) -> Digits:
    arguments = {
        "class_counts": ListedCounts([30] * 10, [20] * 10),
        "labeled_holdout": 5,
        "unlabeled_ratio": 1,
        "seed": 0,
        **kwargs,
    }
    data = Digits(label_noise=noise, **arguments)
    data.setup("fit")
    return data


def test_only_the_labeled_stream_has_wrong_labels() -> None:
    clean, data = digits(), digits(SymmetricNoise(0.4))
    assert clean.labeled.truth is None and data.labeled.truth is not None
    assert torch.equal(clean.labeled.rows, data.labeled.rows)
    assert torch.equal(data.labeled.truth, clean.labeled.targets)
    assert 0.3 < (data.labeled.targets != data.labeled.truth).float().mean().item() < 0.5
    assert data.class_counts == torch.bincount(data.labeled.targets).tolist() != clean.class_counts
    assert data.class_count_table()["labeled"] == data.class_counts
    for name in ("unlabeled", "val", "test"):
        there, here = getattr(clean, name), getattr(data, name)
        assert torch.equal(there.rows, here.rows) and torch.equal(there.targets, here.targets), name
    batch = next(iter(data.train_dataloader()["labeled"]))
    assert torch.equal(batch["target"], data.labeled.targets[batch["index"]])
    assert not torch.equal(batch["target"], data.labeled.truth[batch["index"]]) and batch.keys() == {
        "image", "index", "target",
    }  # fmt: skip
    assert next(iter(data.train_dataloader()["unlabeled"])).keys() == {"image", "index"}


def test_an_image_has_the_same_label_in_a_larger_labeled_set_and_whatever_was_drawn_before() -> None:
    few = digits(SymmetricNoise(0.4))
    torch.manual_seed(7)
    many = digits(SymmetricNoise(0.4), class_counts=LabeledFraction(0.9))
    shared = torch.isin(few.labeled.rows, many.labeled.rows)
    place = {row: position for position, row in enumerate(many.labeled.rows.tolist())}
    places = torch.tensor([place[row] for row in few.labeled.rows[shared].tolist()])
    assert len(places) > 200 and torch.equal(few.labeled.targets[shared], many.labeled.targets[places])
    assert not torch.equal(digits(SymmetricNoise(0.4), seed=1).labeled.targets, few.labeled.targets)


def test_a_class_that_is_mistaken_must_be_one_of_the_data() -> None:
    with pytest.raises(ValueError, match="'cat', and there is no such class; the classes are 0, 1"):
        Digits(label_noise=PairNoise(0.2, {"3": "cat"}))


def test_a_resume_with_other_labels_is_refused_and_a_test_is_not(tmp_path: Path) -> None:
    def trainer(epochs: int) -> Trainer:
        seed_everything(0)
        return Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, use_distributed_sampler=False,
            default_root_dir=tmp_path, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip

    def small(noise: LabelNoise | None) -> dict[str, Any]:
        method = Supervised(num_classes=10, network=partial(CifarResNet, depth=8))
        return {"model": method, "datamodule": digits(noise, labeled_batch_size=4, steps_per_epoch=1)}

    first = trainer(1)
    first.fit(**small(SymmetricNoise(0.4)))
    first.save_checkpoint(tmp_path / "one.ckpt")
    trainer(2).fit(**small(SymmetricNoise(0.4)), ckpt_path=tmp_path / "one.ckpt")
    for noise in (None, SymmetricNoise(0.3)):
        with pytest.raises(ValueError, match="was trained with other labels than label_noise gives now"):
            trainer(2).fit(**small(noise), ckpt_path=tmp_path / "one.ckpt")
    trainer(1).test(**small(None), ckpt_path=tmp_path / "one.ckpt", verbose=False)


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_noise_makes_wrong_labels_and_more_of_it_changes_more(
    classes: list[int], share: float, other: float, pairs: bool
) -> None:
    targets = torch.tensor(classes)
    kind = PairNoise if pairs else SymmetricNoise

    def changed(share: float) -> torch.Tensor:
        labels = noisy(kind(share), targets, seed=len(classes))
        assert ((labels >= 0) == (targets >= 0)).all() and labels.max() < len(NAMES)
        wrong = labels != targets
        assert not pairs or torch.equal(labels[wrong], (targets[wrong] + 1) % len(NAMES))
        return wrong

    less, more = changed(min(share, other)), changed(max(share, other))
    assert (less <= more).all()
    assert not changed(0.0).any() and torch.equal(changed(1.0), targets >= 0)
