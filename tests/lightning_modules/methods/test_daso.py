"""DASO's blend by hand, and its step on a network whose features and logits are the pixels."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules import DASO
from tailmatch.lightning_modules.methods.daso import blend_weights, blended
from tests.contract import run
from tests.lightning_modules.pixel_network import PixelNetwork, image

SHARES = torch.tensor([0.6, 0.3, 0.1])


@pytest.mark.parametrize(("temperature", "expected"), [(1.5, [1, 0.63, 0.3029]), (0.3, [1, 0.0992, 0.0025])])
def test_frequent_pseudo_labels_are_blended_more(temperature: float, expected: list[float]) -> None:
    assert blend_weights(SHARES, temperature).tolist() == pytest.approx(expected, abs=5e-5)
    assert blend_weights(torch.tensor([0.5, 0.5, 0.0]), temperature).tolist() == [1, 1, 0]


def test_the_blend_goes_by_the_predicted_class() -> None:
    found = blended(torch.tensor([[0.2, 0.3, 0.5]]), torch.tensor([[0.1, 0.8, 0.1]]), blend_weights(SHARES, 1.5))
    assert found[0].tolist() == pytest.approx([0.1697, 0.4514, 0.3789], abs=5e-5)


LABELED = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 1.0]]
WEAK, STRONG = [0.0, 2.5, 2.4], [0.0, 1.0, 0.0]


def batch() -> Any:
    return {
        "labeled": {"weak": torch.cat([image(*row) for row in LABELED]), "target": torch.tensor([0, 1, 1])},
        "unlabeled": {"weak": image(*WEAK), "strong": [image(*STRONG)], "index": torch.tensor([4])},
    }


def made(done: int, **arguments: Any) -> tuple[DASO, dict[str, Tensor]]:
    """A method that did some steps; its averaged network has features and logits that are twice the pixels."""
    method = DASO(3, network=PixelNetwork, warmup_steps=2, similarity_temperature=0.5, threshold=0.6, **arguments)
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    method._trainer = SimpleNamespace(global_step=done)  # type: ignore[assignment]
    assert method._averaging is not None
    method._averaging._average = {"network.scale": torch.tensor(2.0)}
    return method, logged


def softmax(logits: list[float]) -> list[float]:
    return [math.exp(z) / sum(map(math.exp, logits)) for z in logits]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_a_step_by_hand() -> None:
    method, logged = made(done=2)
    method.shares.probs.copy_(SHARES)
    loss = method.training_step(batch(), 0)
    # The averaged features of this step are in the queue already; class 2 has none, and a cosine of 0.
    means = [[2.0, 0.0, 0.0], [0.0, 3.0, 1.0]]
    assert method.queue.prototypes.tolist() == [*means, [0.0, 0.0, 0.0]]
    similar = softmax([cosine(WEAK, mean) / 0.5 for mean in means] + [0.0])
    strong = softmax([cosine(STRONG, mean) / 0.5 for mean in means] + [0.0])
    alignment = -sum(q * math.log(s) for q, s in zip(similar, strong, strict=True))
    assert logged["loss_alignment"].item() == pytest.approx(alignment, rel=1e-5)
    # FixMatch predicts class 1 with 0.504; the blend with its weight of 0.63 is above the threshold of 0.6.
    blend = [0.37 * p + 0.63 * q for p, q in zip(softmax(WEAK), similar, strict=True)]
    assert max(softmax(WEAK)) < 0.6 < max(blend) == pytest.approx(logged["confidence"].item(), abs=1e-4)
    fixmatch = -sum(math.log(softmax(row)[y]) for row, y in zip(LABELED, (0, 1, 1), strict=True)) / 3
    fixmatch -= math.log(softmax(STRONG)[1])
    assert loss.item() == pytest.approx(fixmatch + alignment, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert method.network.scale.grad is not None


def test_the_warm_up_is_fixmatch_with_a_queue() -> None:
    method, logged = made(done=1)
    method.training_step(batch(), 0)
    assert logged["loss_alignment"].item() == 0 == logged["selected"].item()
    assert method.queue.counts.tolist() == [1, 2, 0]


def test_shares_are_those_of_the_last_interval() -> None:
    method, _ = made(done=0, every=2)
    for label in ([0], [1], [1], [1]):
        before = method.shares.probs.tolist()
        method.pseudo_labels(torch.eye(3)[torch.tensor(label)], torch.tensor([0]))
        changes = method.shares.probs.tolist() != before
        assert changes == (label == [1] and int(method.shares.steps) % 2 == 0)
    assert method.shares.probs.tolist() == [0, 1, 0]


def test_a_training_that_ends_in_the_warm_up_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="blend of pseudo-labels would never begin: warmup_steps is 12"):
        run(lambda **kwargs: DASO(warmup_steps=12, **kwargs), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["blend_temperature", "similarity_temperature", "lambda_alignment", "queue_size", "warmup_steps", "every"],
)
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1"):
        DASO(3, network=PixelNetwork, **{name: -1})
