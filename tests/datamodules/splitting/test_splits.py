"""The split: disjoint, seeded, exact."""

import itertools

import pytest
import torch

from tailmatch.datamodules.splitting.long_tail import ClassCounts, LabeledFraction, ListedCounts
from tailmatch.datamodules.splitting.splits import draw_split

NAMES = ["ant", "bee", "cow"]
TARGETS = torch.tensor([0] * 30 + [1] * 20 + [2] * 10 + [-1] * 5)


def draw(seed: int = 0, **kwargs: object) -> dict[str, torch.Tensor]:
    arguments: dict[str, object] = {"val_holdout": 3, "test_holdout": 2, "seed": seed, **kwargs}
    counts = arguments.pop("class_counts", ListedCounts([10, 5, 2]))
    return vars(draw_split(TARGETS, NAMES, counts, **arguments))  # type: ignore[arg-type]


def test_no_image_is_in_two_sets_and_none_is_lost() -> None:
    split = draw()
    for a, b in itertools.combinations(split.values(), 2):
        assert not set(a.tolist()) & set(b.tolist())
    assert sorted(torch.cat(list(split.values())).tolist()) == list(range(len(TARGETS)))


def test_counts_are_those_asked_for() -> None:
    split = draw()
    per_class = {name: torch.bincount(TARGETS[rows].clamp(min=-1) + 1, minlength=4) for name, rows in split.items()}
    assert per_class["labeled"].tolist() == [0, 10, 5, 2]
    assert per_class["unlabeled"].tolist() == [5, 15, 10, 3]
    assert per_class["val"].tolist() == [0, 3, 3, 3]
    assert per_class["test"].tolist() == [0, 2, 2, 2]


def test_the_seed_decides() -> None:
    assert all(torch.equal(a, b) for a, b in zip(draw(1).values(), draw(1).values(), strict=True))
    assert not torch.equal(draw(1)["labeled"], draw(2)["labeled"])


def test_held_out_images_do_not_depend_on_class_counts() -> None:
    other = draw(class_counts=LabeledFraction(0.5))
    assert torch.equal(draw()["val"], other["val"]) and torch.equal(draw()["test"], other["test"])


def test_a_share_is_taken_of_every_class() -> None:
    split = draw(val_holdout=0.1, test_holdout=0.5, class_counts=LabeledFraction(0.5))
    assert torch.bincount(TARGETS[split["test"]]).tolist() == [15, 10, 5]
    assert torch.bincount(TARGETS[split["val"]], minlength=3).tolist() == [2, 1, 0]  # round(0.5) is 0


def test_too_many_names_class_wanted_and_available() -> None:
    with pytest.raises(ValueError, match=r"class 'cow': wanted 4 labeled \+ 4 unlabeled = 8 images, available 5"):
        draw(class_counts=ListedCounts([1, 1, 4], [1, 1, 4]))
    with pytest.raises(ValueError, match="class 'cow': val_holdout wants 9 images, available 8"):
        draw(val_holdout=9)
    with pytest.raises(ValueError, match="test_holdout is 1.5"):
        draw(test_holdout=1.5)


def test_a_label_outside_the_range_is_named() -> None:
    with pytest.raises(ValueError, match="label 3 of image 1 is outside the range.*0 to 2"):
        draw_split(torch.tensor([0, 3]), NAMES, LabeledFraction(), val_holdout=0, test_holdout=0, seed=0)


def test_labeled_images_can_be_held_out_without_changing_other_sets() -> None:
    whole, part = draw(), draw(labeled_holdout=1)
    assert torch.bincount(TARGETS[part["labeled_holdout"]]).tolist() == [1, 1, 1]
    assert sorted(torch.cat([part["labeled"], part["labeled_holdout"]]).tolist()) == sorted(whole["labeled"].tolist())
    for name in ("unlabeled", "val", "test"):
        assert torch.equal(part[name], whole[name])
    with pytest.raises(ValueError, match="class 'cow': labeled_holdout wants 2 of 2 labeled images"):
        draw(labeled_holdout=2)


POOLED = torch.cat([TARGETS, torch.tensor([0, 1, 1, 2, 2, 2, -1])])


def draw_pooled(class_counts: ClassCounts) -> dict[str, torch.Tensor]:
    arguments = {"val_holdout": 3, "test_holdout": 2, "seed": 0, "unlabeled_from": len(TARGETS)}
    return vars(draw_split(POOLED, NAMES, class_counts, **arguments))  # type: ignore[arg-type]


def test_a_separate_pool_alone_gives_the_unlabeled_images_of_a_class() -> None:
    split = draw_pooled(ListedCounts([10, 5, 2], [0, 1, 2]))
    assert all(torch.equal(split[name], rows) for name, rows in draw().items() if name != "unlabeled")
    drawn = split["unlabeled"][:3]
    assert POOLED[drawn].tolist() == [1, 2, 2] and (drawn >= len(TARGETS)).all()
    assert split["unlabeled"][3:].tolist() == (POOLED == -1).nonzero().squeeze(1).tolist()


def test_all_of_a_separate_pool_is_unlabeled_where_no_counts_are_given() -> None:
    for counts in (ListedCounts([10, 5, 2]), LabeledFraction(0.5)):
        split = draw_pooled(counts)
        known = split["unlabeled"][POOLED[split["unlabeled"]] >= 0]
        assert sorted(known.tolist()) == list(range(len(TARGETS), len(POOLED) - 1))


def test_too_many_of_a_separate_pool_name_class_wanted_and_available() -> None:
    with pytest.raises(ValueError, match="class 'bee': wanted 3 unlabeled images, available 2 in the separate"):
        draw_pooled(ListedCounts([10, 5, 2], [1, 3, 1]))
    with pytest.raises(ValueError, match=r"class 'cow': wanted 6 labeled \+ 0 unlabeled = 6 images, available 5"):
        draw_pooled(ListedCounts([10, 5, 6], [0, 0, 0]))
