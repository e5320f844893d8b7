"""Losses of MixMatch, SimMixMatch and ReMixMatch worked by hand, on a network whose logits are the pixels."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.callbacks import DistributionAlignment
from tailmatch.lightning_modules import MixMatch, ReMixMatch, SimMixMatch
from tailmatch.lightning_modules.bases.mixing import MixingClassifier
from tailmatch.lightning_modules.losses import nt_xent
from tailmatch.lightning_modules.networks import CifarResNet
from tests.lightning_modules.pixel_network import PixelNetwork, image

LOG2, LOG3 = math.log(2), math.log(3)
LABELED = torch.cat([image(LOG2, 0, 0), image(0, 0, LOG3)])  # probs (2, 1, 1) / 4 and (1, 1, 3) / 5
TARGET = torch.tensor([0, 2])
LABELED_LOSS = (math.log(4 / 2) + math.log(5 / 3)) / 2
VIEWS = [
    torch.cat([image(LOG2, 0, 0), image(0, 0, 0)]),  # probs (2, 1, 1) / 4 and (1, 1, 1) / 3
    torch.cat([image(0, LOG2, 0), image(0, 0, 0)]),  # probs (1, 2, 1) / 4 and (1, 1, 1) / 3
]
# The mean of image 0 is (3, 3, 2) / 8; squared and normalized (9, 9, 4) / 22. Image 1 stays uniform.
GUESS = torch.tensor([[9 / 22, 9 / 22, 4 / 22], [1 / 3, 1 / 3, 1 / 3]])


class Fixed:
    """A refiner that remembers what it gets and gives fixed rows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.seen: list[Tensor] = []

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        self.seen.append(probs)
        return self.rows


@pytest.fixture(autouse=True)
def unmixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixtures of an image with nothing but itself."""
    alone = lambda size, *args: (torch.ones(size), torch.arange(size))  # noqa: E731
    monkeypatch.setattr("tailmatch.lightning_modules.bases.mixing.mixup_partners", alone)


def step(method: MixingClassifier, batch: Any, *refiners: Fixed, at: int = 100) -> tuple[float, dict[str, float]]:
    method._trainer = SimpleNamespace(global_step=at, world_size=1)  # type: ignore[assignment]
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    for refiner in refiners:
        method.add_refiner(refiner)
    loss = method.training_step(batch, 0)
    assert logged["loss"] is loss
    return loss.item(), {name: value.item() for name, value in logged.items()}


def mixmatch_batch() -> Any:
    unlabeled = {"weak": VIEWS, "index": torch.tensor([5, 3])}
    return {"labeled": {"weak": LABELED, "target": TARGET}, "unlabeled": unlabeled}


def squared_error(target: Tensor) -> float:
    predicted = [[2 / 4, 1 / 4, 1 / 4], [1 / 3] * 3, [1 / 4, 2 / 4, 1 / 4], [1 / 3] * 3]
    rows = zip(predicted, [*target.tolist(), *target.tolist()], strict=True)
    return sum((p - q) ** 2 for row, wanted in rows for p, q in zip(row, wanted, strict=True)) / 12


def test_mixmatch() -> None:
    loss, logged = step(MixMatch(num_classes=3, network=PixelNetwork, rampup_steps=200), mixmatch_batch())
    assert logged["loss_labeled"] == pytest.approx(LABELED_LOSS, rel=1e-5)
    assert logged["loss_unlabeled"] == pytest.approx(squared_error(GUESS), rel=1e-4)
    assert logged["confidence"] == pytest.approx((9 / 22 + 1 / 3) / 2, rel=1e-5)
    assert loss == pytest.approx(LABELED_LOSS + 0.5 * 75 * squared_error(GUESS), rel=1e-4)


def test_mixmatch_is_refined_between_sharpening_and_mixing() -> None:
    refined = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    remedy = Fixed(refined)
    loss, _ = step(MixMatch(num_classes=3, network=PixelNetwork, rampup_steps=0), mixmatch_batch(), remedy)
    assert torch.allclose(remedy.seen[0], GUESS)
    assert loss == pytest.approx(LABELED_LOSS + 75 * squared_error(refined), rel=1e-4)


def test_simmixmatch_adds_the_contrast_of_the_views_logits() -> None:
    method = SimMixMatch(num_classes=3, network=PixelNetwork, lambda_s=2.0, contrast_temperature=0.5)
    batch = mixmatch_batch()
    batch["unlabeled"]["weak"] = [torch.cat([view[:1], image(0, 0, 1)]) for view in VIEWS]  # no zero vector
    plain, _ = step(MixMatch(num_classes=3, network=PixelNetwork), batch)
    loss, logged = step(method, batch)
    embeddings = torch.stack([view[:, 0, 0] for view in batch["unlabeled"]["weak"]])
    assert logged["loss_contrast"] == pytest.approx(nt_xent(embeddings, 0.5).item(), rel=1e-5)
    assert loss == pytest.approx(plain + 2 * logged["loss_contrast"], rel=1e-5)


def test_simmixmatch_trains_by_the_contrast_alone() -> None:
    """Gradient reaches the network through the logits, and the projection if it is what is contrasted."""
    for contrast_on in ("logits", "projection"):
        method = SimMixMatch(
            num_classes=3,
            network=lambda k: CifarResNet(k, depth=8),
            contrast_on=contrast_on,  # type: ignore[arg-type]
        )
        method._trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
        features = method.network.features(torch.rand(4, 3, 8, 8))
        embedded = method.network.head(features) if method.projection is None else method.projection(features)
        method.contrast(embedded.unflatten(0, (2, 2))).backward()  # type: ignore[no-untyped-call]
        trained = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert any(name.startswith("network.") for name in trained)
        assert any("projection" in name for name in trained) == (contrast_on == "projection")


class Turned(PixelNetwork):
    """Images turned by quarters have no pixel row of three: their features are the same for all."""

    def _features(self, normalized: Tensor) -> Tensor:
        return normalized.mean(1)[:, 0, :3] * self.scale


def square(*logits: float) -> Tensor:
    return image(*logits).expand(1, 3, 3, 3)


def remixmatch_batch() -> Any:
    weak = torch.cat([square(LOG2, 0, 0), square(0, 0, 0)])
    strong = torch.cat([square(0, LOG2, 0), square(0, LOG3, 0)])  # probs (1, 2, 1) / 4 and (1, 3, 1) / 5
    labeled = torch.cat([square(LOG2, 0, 0), square(0, 0, LOG3)])
    return {
        "labeled": {"view": labeled, "target": TARGET},
        "unlabeled": {
            "weak": weak,
            "strong": [strong],
            "turned": strong,
            "turns": torch.tensor([0, 3]),
            "index": torch.tensor([5, 3]),
        },
    }


def test_remixmatch() -> None:
    method = ReMixMatch(num_classes=3, network=Turned, strong_views=1, rampup_steps=200)
    with torch.no_grad():  # logits of the turn: the features, and -1 for the fourth
        method.rotation_head.weight.copy_(torch.eye(4, 3))
        method.rotation_head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -1.0]))
    loss, logged = step(method, remixmatch_batch())
    # Image 0: (2, 1, 1) / 4 sharpened to (4, 1, 1) / 6; image 1 uniform.
    weak0 = -(4 * math.log(2 / 4) + 2 * math.log(1 / 4)) / 6
    strong0 = -(math.log(2 / 4) + 5 * math.log(1 / 4)) / 6
    weak1, strong1 = LOG3, -(2 * math.log(1 / 5) + math.log(3 / 5)) / 3
    unlabeled, anchored = (weak0 + strong0 + weak1 + strong1) / 4, (strong0 + strong1) / 2
    turn0 = math.log(1 + 2 + 1 + math.exp(-1))
    turn1 = 1 + math.log(1 + 3 + 1 + math.exp(-1))
    assert logged["loss_labeled"] == pytest.approx(LABELED_LOSS, rel=1e-5)
    assert logged["loss_unlabeled"] == pytest.approx(unlabeled, rel=1e-5)
    assert logged["loss_strong"] == pytest.approx(anchored, rel=1e-5)
    assert logged["loss_rotation"] == pytest.approx((turn0 + turn1) / 2, rel=1e-5)
    expected = LABELED_LOSS + 0.5 * (1.5 * unlabeled + 0.5 * anchored) + 0.5 * (turn0 + turn1) / 2
    assert loss == pytest.approx(expected, rel=1e-5)


def test_remixmatch_is_aligned_before_sharpening_and_refined_after() -> None:
    method = ReMixMatch(num_classes=3, network=Turned, strong_views=1)
    aligner, refiner = Fixed(torch.tensor([[0.2, 0.8, 0.0], [0.5, 0.5, 0.0]])), Fixed(torch.eye(3)[:2])
    method.add_refiner(aligner, before_sharpening=True)
    step(method, remixmatch_batch(), refiner)
    assert torch.allclose(aligner.seen[0], torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]))
    assert torch.allclose(refiner.seen[0], torch.tensor([[4 / 68, 64 / 68, 0.0], [0.5, 0.5, 0.0]]))


def test_remixmatch_views() -> None:
    torch.manual_seed(0)
    stream = {"image": torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)}
    for labeled_strong in (True, False):
        method = ReMixMatch(num_classes=3, network=lambda k: CifarResNet(k, depth=8), labeled_strong=labeled_strong)
        method.weak.augment = lambda x: torch.zeros_like(x)  # type: ignore[method-assign,union-attr]
        batch = method.make_views({"labeled": dict(stream), "unlabeled": dict(stream)})
        assert bool(batch["labeled"]["view"].any()) == labeled_strong
        assert not batch["unlabeled"]["weak"].any() and len(batch["unlabeled"]["strong"]) == 8
        strong, turned = batch["unlabeled"]["strong"][0], batch["unlabeled"]["turned"]
        for image_, turns, expected in zip(strong, batch["unlabeled"]["turns"], turned, strict=True):
            assert torch.equal(torch.rot90(image_, int(turns), (1, 2)), expected)


def aligners(method: ReMixMatch, *callbacks: DistributionAlignment) -> list[DistributionAlignment]:
    method.trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=list(callbacks))
    return [c for c in method.configure_callbacks() if isinstance(c, DistributionAlignment)]


def test_remixmatch_brings_alignment_unless_the_user_does() -> None:
    method = ReMixMatch(num_classes=3, network=PixelNetwork)
    assert len(aligners(method)) == 1
    assert aligners(method, DistributionAlignment([1, 2, 3])) == []
    assert aligners(ReMixMatch(num_classes=3, network=PixelNetwork, align=False)) == []
