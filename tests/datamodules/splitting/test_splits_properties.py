"""What holds for every split: disjoint, complete, with the counts that were asked for, the same for the same seed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tailmatch.datamodules import InMemory, ListedCounts
from tailmatch.datamodules.splitting.splits import Split, draw_split

SETS = ("labeled", "labeled_holdout", "unlabeled", "val", "test")


class Wanted(NamedTuple):
    """A pool and what to draw from it."""

    targets: Tensor
    available: list[int]
    labeled: list[int]
    unlabeled: list[int] | None
    options: dict[str, Any]


@st.composite
def wanted(draw: Callable[[Any], Any]) -> Wanted:
    """Draw a pool of some classes, some images of which have none, and counts that it can give."""
    classes = draw(st.integers(2, 6))
    val, test, holdout = draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(st.integers(0, 2))
    labeled = draw(st.lists(st.integers(holdout + 1, 8), min_size=classes, max_size=classes))
    unlabeled = draw(st.lists(st.integers(0, 8), min_size=classes, max_size=classes))
    rest = draw(st.lists(st.integers(0, 4), min_size=classes, max_size=classes))
    available = [sum(parts) + val + test for parts in zip(labeled, unlabeled, rest, strict=True)]
    sizes = torch.tensor([draw(st.integers(0, 9)), *available])
    targets = torch.arange(-1, classes).repeat_interleave(sizes)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    options = {
        "val_holdout": val,
        "test_holdout": test,
        "labeled_holdout": holdout,
        "seed": draw(st.integers(0, 999)),
    }
    return Wanted(targets[order], available, labeled, draw(st.sampled_from([None, unlabeled])), options)


def drawn(pool: Wanted, **options: Any) -> Split:
    names = [f"class {k}" for k in range(len(pool.labeled))]
    return draw_split(pool.targets, names, ListedCounts(pool.labeled, pool.unlabeled), **{**pool.options, **options})


def same(a: Split, b: Split, *names: str) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names or SETS)


@given(wanted())
def test_the_sets_are_disjoint_have_the_counts_and_are_drawn_again_by_the_same_seed(pool: Wanted) -> None:
    split = drawn(pool)
    assert same(split, drawn(pool))
    rows = torch.cat([getattr(split, name) for name in SETS])
    assert len(rows.unique()) == len(rows)
    val, test, holdout = (pool.options[f"{name}_holdout"] for name in ("val", "test", "labeled"))
    left = [n - a - val - test for n, a in zip(pool.available, pool.labeled, strict=True)]
    expected = {
        "labeled": [n - holdout for n in pool.labeled],
        "labeled_holdout": [holdout] * len(pool.labeled),
        "unlabeled": left if pool.unlabeled is None else pool.unlabeled,
        "val": [val] * len(pool.labeled),
        "test": [test] * len(pool.labeled),
    }
    for name in SETS:
        targets = pool.targets[getattr(split, name)]
        assert torch.bincount(targets[targets >= 0], minlength=len(pool.labeled)).tolist() == expected[name], name
        assert name == "unlabeled" or (targets >= 0).all()
    assert set((pool.targets < 0).nonzero().flatten().tolist()) <= set(split.unlabeled.tolist())
    if pool.unlabeled is None:
        assert len(rows) == len(pool.targets)


@given(wanted(), st.integers(0, 2**32))
def test_a_set_depends_on_what_comes_before_it_alone(pool: Wanted, seed: int) -> None:
    split = drawn(pool)
    fewer = pool._replace(labeled=[n - 1 for n in pool.labeled], options={**pool.options, "labeled_holdout": 0})
    assert same(split, drawn(fewer), "val", "test")
    whole = drawn(pool, labeled_holdout=0)
    assert same(split, whole, "unlabeled", "val", "test")
    assert set(whole.labeled.tolist()) == {*split.labeled.tolist(), *split.labeled_holdout.tolist()}


@given(wanted())
def test_a_separate_pool_gives_the_unlabeled_images_alone(pool: Wanted) -> None:
    start = len(pool.targets)
    both = pool._replace(targets=torch.cat([pool.targets, pool.targets]))
    split, one = drawn(both, unlabeled_from=start), drawn(pool)
    assert same(split, one, "labeled", "labeled_holdout", "val", "test")
    known = split.unlabeled[both.targets[split.unlabeled] >= 0]
    assert (known >= start).all()
    wanted = pool.available if pool.unlabeled is None else pool.unlabeled
    assert torch.bincount(both.targets[known], minlength=len(wanted)).tolist() == wanted


@given(wanted(), st.booleans())
def test_a_data_module_counts_what_it_draws(pool: Wanted, include: bool) -> None:
    images = torch.arange(len(pool.targets)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    holdout = {} if pool.options["labeled_holdout"] else {"val_holdout": pool.options["val_holdout"]}
    data = InMemory(
        images,
        pool.targets,
        class_counts=ListedCounts(pool.labeled, pool.unlabeled),
        class_names=[f"class {k}" for k in range(len(pool.labeled))],
        include_labeled_in_unlabeled=include,
        test_holdout=pool.options["test_holdout"],
        labeled_holdout=pool.options["labeled_holdout"],
        seed=pool.options["seed"],
        **holdout,
    )
    data.setup("predict")
    split = drawn(pool, **({} if holdout else {"val_holdout": 0}))
    assert torch.equal(data.labeled.rows, split.labeled)
    front = split.labeled if include else split.labeled[:0]
    assert torch.equal(data.unlabeled.rows, torch.cat([front, split.unlabeled]))
    assert torch.equal(data.pool.rows, torch.cat([split.labeled, split.unlabeled]))
    batch = data.unlabeled.__getitems__(list(range(len(data.unlabeled))))
    assert "target" not in batch and torch.equal(batch["image"][:, 0, 0, 0], data.unlabeled.rows.to(torch.uint8))
    assert data.class_counts == [n - pool.options["labeled_holdout"] for n in pool.labeled]
