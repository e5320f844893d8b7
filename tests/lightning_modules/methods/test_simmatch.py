"""SimMatch's step by hand, on a network whose features and logits are the pixels."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.callbacks import DistributionAlignment
from tailmatch.lightning_modules import SimMatch
from tests.contract import run
from tests.lightning_modules.pixel_network import PixelNetwork, image

LABELED = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
WEAK, STRONG = [3.0, 4.0, 0.0], [1.0, 0.0, 1.0]


def made(done: int, **arguments: Any) -> tuple[SimMatch, dict[str, Tensor]]:
    """A method with three labeled images, of which two have come; its averaged network has twice the pixels."""
    settings = {"smoothing": 0.75, "threshold": 0.5, "similarity_temperature": 0.5, "dim": 3, **arguments}
    method = SimMatch(3, network=PixelNetwork, warmup_steps=2, **settings)
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    method._trainer = SimpleNamespace(global_step=done)  # type: ignore[assignment]
    assert method._averaging is not None
    method._averaging._average = {"network.scale": torch.tensor(2.0)}
    method.projection = torch.nn.Identity()  # type: ignore[assignment]
    method.neighbors.adapt(3)
    method.neighbors.write(torch.tensor([0, 2]), torch.eye(3)[:2], torch.tensor([0, 1]))
    return method, logged


def batch() -> Any:
    return {
        "labeled": {
            "weak": torch.cat([image(*row) for row in LABELED]),
            "target": torch.tensor([0, 1]),
            "index": torch.tensor([1, 2]),
        },
        "unlabeled": {"weak": image(*WEAK), "strong": [image(*STRONG)], "index": torch.tensor([4])},
    }


def softmax(logits: list[float]) -> list[float]:
    return [math.exp(z) / sum(map(math.exp, logits)) for z in logits]


def test_a_step_by_hand() -> None:
    method, logged = made(done=2)
    loss = method.training_step(batch(), 0)
    probs = softmax([6, 8, 0])  # of the averaged network
    # The weak view's embedding is (.6, .8, 0): 1.2 of similarity with image 0, of class 0, and 1.6 with 2, of class 1.
    weights = softmax([1.2, 1.6])
    label = [0.75 * p + 0.25 * a for p, a in zip(probs, [*weights, 0.0], strict=True)]
    assert logged["confidence"].item() == pytest.approx(label[1], rel=1e-5)
    products = [w * p for w, p in zip(weights, probs[:2], strict=True)]
    similar = softmax([math.sqrt(0.5) / 0.5, 0.0])  # of the strong view's embedding (.71, 0, .71)
    instances = -sum(c / sum(products) * math.log(s) for c, s in zip(products, similar, strict=True))
    assert logged["loss_instances"].item() == pytest.approx(instances, rel=1e-5)
    strong = softmax(STRONG)
    fixmatch = -sum(math.log(softmax(row)[y]) for row, y in zip(LABELED, (0, 1), strict=True)) / 2
    fixmatch -= sum(q * math.log(p) for q, p in zip(label, strong, strict=True))
    assert loss.item() == pytest.approx(fixmatch + instances, rel=1e-5)
    # Then the memory has this step's labeled images.
    assert method.neighbors.memory.labels.tolist() == [0, 0, 1, -1]
    assert method.neighbors.embeddings.rows[2].tolist() == [0, 1, 0]


def test_the_warm_up_is_fixmatch_of_the_averaged_network() -> None:
    method, logged = made(done=1)
    loss = method.training_step(batch(), 0)
    assert logged["loss_instances"].item() == 0
    assert logged["confidence"].item() == pytest.approx(softmax([6, 8, 0])[1], rel=1e-5)
    assert loss.item() == pytest.approx((logged["loss_labeled"] + logged["loss_unlabeled"]).item(), rel=1e-6)


def test_alignment_is_with_equal_classes() -> None:
    callbacks = SimMatch(3, network=PixelNetwork).configure_callbacks()
    [alignment] = [each for each in callbacks if isinstance(each, DistributionAlignment)]
    assert alignment.target == [1, 1, 1] and alignment.batches == 256
    callbacks = SimMatch(3, network=PixelNetwork, align=False).configure_callbacks()
    assert not any(isinstance(each, DistributionAlignment) for each in callbacks)


def test_a_training_that_ends_in_the_warm_up_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="SimMatch's use of similarities would never begin: warmup_steps is 12"):
        run(partial(SimMatch, warmup_steps=12), tmp_path)


@pytest.mark.parametrize(
    "name", ["smoothing", "similarity_temperature", "lambda_instances", "align_batches", "dim", "warmup_steps"]
)
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1"):
        SimMatch(3, network=PixelNetwork, **{name: -1})
