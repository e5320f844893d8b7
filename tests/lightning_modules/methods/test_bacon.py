"""BaCon's contrast by hand, its memories, and the gradient of the weak views."""

import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import tailmatch
from tailmatch.lightning_modules import BaCon, FixMatchABC
from tailmatch.lightning_modules.losses.center_contrast import (
    anchors_and_negatives,
    center_contrast,
    class_centers,
    class_temperatures,
)
from tests.contract import at_epoch_ends, plain_network, run, saved
from tests.lightning_modules.methods.test_auxiliary_balanced import COUNTS, batch
from tests.lightning_modules.pixel_network import PixelNetwork


def test_temperature_by_hand() -> None:
    found = class_temperatures(torch.tensor([40, 10, 0]), 0.5)
    torch.testing.assert_close(found, torch.tensor([0.099875, 0.0999375, 0.1]))
    assert class_temperatures(torch.zeros(3), 0.5).tolist() == pytest.approx([0.1] * 3)  # no label yet


def at(cosine: float) -> list[float]:
    return [cosine, math.sqrt(1 - cosine**2)]


def test_contrast_by_hand() -> None:
    rows = torch.tensor([[1.0, 0.0], at(0.2), at(-0.1), at(0.5)]) * 3  # lengths do not matter
    anchors = functional.one_hot(torch.tensor([0, 1, 1, 1]), 2).float()
    centers = torch.tensor([at(0.9), [0.0, 0.0]])
    temperatures = torch.tensor([0.0999375, 0.1])
    only_first = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
    loss = center_contrast(rows, anchors, 1 - anchors, only_first, centers, temperatures)
    positive, negative = math.exp(0.9 / 0.0999375), 64 * sum(math.exp(10 * s) for s in (0.2, -0.1, 0.5)) / 3
    assert (positive, negative) == pytest.approx((8148.8, 3331.6), rel=1e-4)
    assert loss.item() == pytest.approx(0.3428, abs=1e-4)
    # The other class has no center: its anchors do not count, selected or not. Nothing selected is no loss.
    everything = torch.ones(4, 1)
    assert center_contrast(rows, anchors, 1 - anchors, everything, centers, temperatures).item() == loss.item()
    assert center_contrast(rows, anchors, 1 - anchors, 0 * everything, centers, temperatures).item() == 0


def test_the_mean_of_negatives_is_over_all_pairs_of_a_class() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    anchors = functional.one_hot(torch.tensor([0, 0, 1]), 2).float()
    centers = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    selected = torch.tensor([[1.0], [0.0], [0.0]])
    loss = center_contrast(rows, anchors, 1 - anchors, selected, centers, torch.tensor([0.1, 0.1]))
    negative = 64 * (math.exp(-10) + 1) / 2  # of both anchors of class 0
    assert loss.item() == pytest.approx(math.log1p(negative / math.exp(10)), rel=1e-4)


def test_the_three_most_probable_classes_rule_a_negative_out() -> None:
    probs = torch.tensor([[0.1, 0.2, 0.3, 0.35, 0.05], [0.1, 0.2, 0.3, 0.35, 0.05]])
    anchors, negatives = anchors_and_negatives(probs, torch.tensor([0, 3]), torch.tensor([True, False]))
    assert anchors.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 1, 0]]
    assert negatives.tolist() == [[0, 1, 1, 1, 1], [1, 0, 0, 0, 1]]
    _, negatives = anchors_and_negatives(probs[:, :3], torch.tensor([0, 2]), torch.tensor([True, False]))
    assert negatives.tolist() == [[0, 1, 1], [1, 0, 0]]  # of three classes, two


def test_centers_are_means_of_images_that_have_a_label_and_a_projection() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [5.0, 5.0]])
    assert class_centers(rows, torch.tensor([1, 1, 1, -1]), 3).tolist() == [[0, 0], [2, 3], [0, 0]]


def made(done: int) -> Any:
    """A method after `done` of 100 steps, with 3 labeled and 5 unlabeled images, whose projection is the pixels."""
    method: Any = BaCon(
        3, network=PixelNetwork, projection_dim=3, strong_views=2, draw_images=False, contrast_threshold=0.5
    )
    method._trainer = SimpleNamespace(global_step=done, max_steps=100, max_epochs=-1, world_size=1)
    method.class_counts.copy_(torch.tensor(COUNTS))
    nn.init.zeros_(method.standard.weight)
    method.projection.load_state_dict({"weight": torch.eye(3), "bias": torch.zeros(3)})
    method._labeled_images = 3
    method.memory.adapt(8)
    method.projections.adapt(8)
    method.logged = {}
    method.track = method.logged.update
    return method


def step(method: Any) -> Tensor:
    given = batch()
    given["labeled"]["index"] = torch.tensor([2, 0])
    loss: Tensor = method.training_step(given, 0)
    return loss


def test_the_memories_are_written_before_and_after_the_loss() -> None:
    method = made(60)
    method.lambda_contrast = 0.5
    step(method)
    # Labeled images come first. Of the unlabeled ones 4 and 2, the first has confidence 0.987, the second 0.576.
    assert method.memory.labels.tolist() == [2, -1, 0, -1, -1, -1, -1, 1, -1]
    expected = torch.zeros(9, 3)
    expected[[0, 2, 7, 5]] = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 5, 0], [0, 0, 1]])
    torch.testing.assert_close(method.projections.rows, expected)
    assert method.logged["loss_contrast"].item() == 0  # there was no center yet
    loss = step(method)
    assert method.logged["loss_contrast"].item() > 0.001
    parts = [method.logged[f"loss_{name}"] for name in ("labeled", "unlabeled", "balanced")]
    torch.testing.assert_close(loss, sum(parts) + 0.5 * method.logged["loss_contrast"])
    unsure = made(60)
    unsure.contrast_threshold = 0.6
    step(unsure)
    assert unsure.projections.rows.any(dim=1).nonzero().tolist() == [[7]]


def test_before_its_start_it_is_abc_and_then_weak_views_have_a_gradient() -> None:
    early = made(49)
    plain: Any = FixMatchABC(3, network=PixelNetwork, strong_views=2, draw_images=False)
    plain.load_state_dict({name: early.state_dict()[name] for name in plain.state_dict()})
    plain._trainer, plain.track = early._trainer, lambda **values: None
    step(early)
    torch.testing.assert_close(step(early), plain.training_step(batch(), 0))
    late, given = made(50), batch()
    given["labeled"]["index"] = torch.tensor([2, 0])
    given["unlabeled"]["weak"].requires_grad_()
    for _ in range(2):
        late.training_step(given, 0)
    for tensor in (late.projection.weight, given["unlabeled"]["weak"]):
        assert torch.autograd.grad(late.logged["loss_contrast"], tensor, retain_graph=True)[0].abs().max() > 1e-5


def test_it_is_loaded_with_what_it_knows_of_each_image(tmp_path: Path) -> None:
    kind = partial(BaCon, balanced_threshold=0.1, contrast_threshold=0.11, contrast_start=0.3)
    run(kind, tmp_path, at_epoch_ends(tmp_path))
    loaded = tailmatch.load(tmp_path / "last.ckpt", network=plain_network)
    state = saved(tmp_path)["state_dict"]
    assert state["projections.rows"].any(dim=1).sum() > 30
    for name in ("memory.labels", "projections.rows"):
        assert torch.equal(loaded.get_buffer(name), state[name])


@pytest.mark.parametrize("name", ["lambda_contrast", "contrast_threshold", "contrast_start", "projection_dim"])
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1"):
        BaCon(3, network=PixelNetwork, **{name: -1})  # type: ignore[arg-type]
