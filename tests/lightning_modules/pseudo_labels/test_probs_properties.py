"""What holds for every alignment, sharpening and selection of predictions."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tailmatch.lightning_modules.bases.semi_supervised import sharpen
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import align
from tailmatch.lightning_modules.pseudo_labels.selection import select


@st.composite
def predictions(draw: Callable[[Any], Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Draw predictions `[B, K]`, uniform to one-hot, and two distributions `[K]` with zeros."""
    rows, classes = draw(st.integers(1, 20)), draw(st.integers(2, 10))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**40)))
    probs = (draw(st.sampled_from([0.0, 1.0, 5.0, 200.0])) * torch.randn(rows, classes, generator=generator)).softmax(1)
    entries = st.lists(st.sampled_from([0.0, 1e-7, 0.01, 0.5, 1.0]), min_size=classes, max_size=classes).filter(any)
    first, second = (torch.tensor(draw(entries)) for _ in range(2))
    return probs, first / first.sum(), second / second.sum()


@given(predictions(), st.randoms(use_true_random=False))
def test_aligned_rows_are_distributions_whatever_the_target(drawn: Any, random: Any) -> None:
    probs, target, mean = drawn
    aligned = align(probs, target, mean)
    assert aligned.isfinite().all() and aligned.min() >= 0
    torch.testing.assert_close(aligned.sum(1), torch.ones(len(probs)))
    torch.testing.assert_close(align(probs, mean, mean), probs)
    torch.testing.assert_close(align(aligned, mean, target), probs, rtol=1e-3, atol=1e-5)  # undone by the other way
    order = torch.tensor(random.sample(range(len(target)), len(target)))
    torch.testing.assert_close(align(probs[:, order], target[order], mean[order]), aligned[:, order])


@given(predictions(), st.floats(0.05, 1))
def test_sharpening_keeps_the_order_of_the_classes_and_raises_the_largest(drawn: Any, temperature: float) -> None:
    probs = drawn[0]
    result = sharpen(probs, temperature)
    torch.testing.assert_close(result.sum(1), torch.ones(len(probs)))
    assert (result.gather(1, probs.argsort(1)).diff(dim=1) >= 0).all()
    assert (result.amax(1) >= probs.amax(1) - 1e-6).all()
    assert torch.equal(sharpen(probs, 1.0), probs)


@given(
    st.lists(st.tuples(st.integers(-1, 4), st.sampled_from([0.0, 0.2, 0.5, 0.50001, 1.0])), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    st.one_of(st.none(), st.integers(1, 6)),
)
def test_the_most_confident_of_each_class_are_selected(
    rows: list[tuple[int, float]], threshold: float, top: int | None
) -> None:
    label, confidence = torch.tensor([k for k, _ in rows]), torch.tensor([share for _, share in rows])
    selected = select(label, confidence, threshold, top)
    for k in range(5):
        able = [row for row, known in enumerate(label.tolist()) if known == k and confidence[row] >= threshold]
        best = sorted(able, key=lambda row: (-float(confidence[row]), row))[:top]
        assert set((selected & (label == k)).nonzero().flatten().tolist()) == set(best)
    assert not selected[label < 0].any()
