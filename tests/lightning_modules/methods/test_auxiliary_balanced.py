"""ABC's balanced head on FixMatch and ReMixMatch, worked by hand on a network whose logits are the pixels."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tailmatch
from tailmatch.callbacks import LogitAdjustment
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import FixMatchABC, ReMixMatchABC
from tailmatch.lightning_modules.bases.balanced_head import BalancedHead, shares_of_smallest
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.contract import at_epoch_ends, prepare, run
from tests.lightning_modules.pixel_network import PixelNetwork, image

COUNTS = (100, 10, 1)
HALFWAY: Any = SimpleNamespace(global_step=50, max_steps=100, max_epochs=-1, world_size=1)


def test_shares_worked_by_hand() -> None:
    counts = torch.tensor(COUNTS)
    assert shares_of_smallest(counts, 1.0).tolist() == pytest.approx([0.01, 0.1, 1])
    assert shares_of_smallest(counts, 0.5).tolist() == pytest.approx([0.505, 0.55, 1])
    assert shares_of_smallest(counts, 0.0).tolist() == [1, 1, 1]
    order = torch.tensor([2, 0, 1])  # the smallest class need not be the last
    assert torch.equal(shares_of_smallest(counts[order], 0.5), shares_of_smallest(counts, 0.5)[order])


def made(kind: type[BalancedHead], counts: Sequence[int] = COUNTS, **kwargs: Any) -> Any:
    """A method half-way through its training, whose balanced logits are the pixels and whose others are zero."""
    method = kind(3, network=PixelNetwork, **kwargs)
    method._trainer = HALFWAY
    method.class_counts.copy_(torch.tensor(counts))
    torch.nn.init.zeros_(method.standard.weight)
    torch.nn.init.zeros_(method.standard.bias)
    method.logged = {}  # type: ignore[assignment]
    method.track = method.logged.update  # type: ignore[method-assign,assignment]
    return method


def batch(views: int = 2) -> Any:
    strong = [torch.cat([image(0, 1 + view, 0), image(2, 0, 0)]) for view in range(views)]
    return {
        "labeled": {"weak": torch.cat([image(1, 0, 0), image(0, 0, 1)]), "target": torch.tensor([0, 2])},
        "unlabeled": {
            "weak": torch.cat([image(0, 5, 0), image(0, 0, 1)]),  # one confident (0.987), one not
            "strong": strong,
            "index": torch.tensor([4, 2]),
        },
    }


def cross_entropy(logits: Sequence[float], target: Sequence[float]) -> float:
    total = math.log(sum(math.exp(value) for value in logits))
    return sum(q * (total - value) for value, q in zip(logits, target, strict=True))


SOFT = [1 / (math.e**5 + 2), math.e**5 / (math.e**5 + 2), 1 / (math.e**5 + 2)]
LABELED = cross_entropy((1, 0, 0), (1, 0, 0))  # also that of the other labeled image
STRONG = [cross_entropy((0, 1, 0), SOFT), cross_entropy((0, 2, 0), SOFT)]


@pytest.mark.parametrize("views", [1, 2])
def test_fixmatch_with_weights_in_place_of_draws(views: int) -> None:
    method = made(FixMatchABC, draw_images=False, strong_views=views)
    loss = method.training_step(batch(views), 0)
    balanced = (0.01 + 1) * LABELED / 2 + 0.55 * sum(STRONG[:views]) / 2  # views are added, images averaged
    assert method.logged["loss_balanced"].item() == pytest.approx(balanced, rel=1e-5)
    # The other head is uniform: no pseudo-label is confident, and a labeled image costs log 3.
    assert method.logged["loss_labeled"].item() == pytest.approx(math.log(3), rel=1e-5)
    assert method.logged["loss_unlabeled"].item() == 0
    assert loss.item() == pytest.approx(math.log(3) + balanced, rel=1e-5)


def test_threshold_of_the_balanced_head() -> None:
    method = made(FixMatchABC, draw_images=False, strong_views=1, balanced_threshold=0.5)
    method.training_step(batch(1), 0)
    other = [1 / (math.e + 2), 1 / (math.e + 2), math.e / (math.e + 2)]  # class 2, which is always drawn
    expected = (0.01 + 1) * LABELED / 2 + (0.55 * STRONG[0] + cross_entropy((2, 0, 0), other)) / 2
    assert method.logged["loss_balanced"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("draws", "expected"), [
    ([0.009, 0.99, 0.54, 0.0], LABELED + sum(STRONG) / 2),
    ([0.011, 0.99, 0.54, 0.0], LABELED / 2 + sum(STRONG) / 2),
    ([0.011, 0.99, 0.56, 0.0], LABELED / 2),
])  # fmt: skip
def test_an_image_is_drawn_once_for_all_its_views(
    draws: list[float], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = torch.tensor(draws)
    rows = iter([left[:2], left[2:]])
    monkeypatch.setattr(torch, "rand", lambda size: next(rows))
    method = made(FixMatchABC, strong_views=2)
    method.training_step(batch(), 0)
    assert method.logged["loss_balanced"].item() == pytest.approx(expected, rel=1e-5)


def test_permuted_classes_give_the_same_loss_and_permuted_gradients() -> None:
    torch.manual_seed(0)
    logits = [torch.randn(6, 3) * 4 for _ in range(4)]
    target, order = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([2, 0, 1])
    found = []
    for counts, rows, labels in (
        (COUNTS, logits, target),
        ([COUNTS[k] for k in order], [row[:, order] for row in logits], order.argsort()[target]),
    ):
        rows = [row.clone().requires_grad_() for row in rows]
        method = made(FixMatchABC, counts, draw_images=False, balanced_threshold=0.4)
        loss = method.balanced_loss(rows[0], labels, rows[1].detach(), rows[2:])
        loss.backward()
        found.append((loss.detach(), [row.grad for row in (rows[0], *rows[2:])]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for plain, permuted in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(plain[:, order], permuted)


def test_remixmatch(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = lambda size, *args: (torch.ones(size), torch.arange(size))  # noqa: E731
    monkeypatch.setattr("tailmatch.lightning_modules.bases.mixing.mixup_partners", alone)
    method = made(ReMixMatchABC, draw_images=False, strong_views=2, rampup_steps=None, align=False)
    given = batch()
    given["labeled"]["view"] = given["labeled"].pop("weak")
    given["unlabeled"] |= {"turned": given["unlabeled"]["strong"][0], "turns": torch.tensor([0, 1])}
    loss = method.training_step(given, 0)
    balanced = (0.01 + 1) * LABELED / 2 + 0.55 * sum(STRONG) / 2
    assert method.logged["loss_balanced"].item() == pytest.approx(balanced, rel=1e-5)
    # The other head is uniform, and so are its pseudo-labels: each of its losses is log 3; unlabeled ones count half.
    others = (1 + 0.5 * (1.5 + 0.5)) * math.log(3) + 0.5 * method.logged["loss_rotation"].item()
    assert loss.item() == pytest.approx(others + balanced, rel=1e-5)


@pytest.mark.parametrize("kind", [FixMatchABC, ReMixMatchABC])
def test_what_is_evaluated_predicted_and_exported_is_the_balanced_head(kind: Any, tmp_path: Path) -> None:
    trainer = run(kind, tmp_path, at_epoch_ends(tmp_path))
    model, data = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    images = data.test.__getitems__(list(range(len(data.test))))
    with torch.no_grad():
        features = model.eval().network.features(to_float(images["image"]))
        logits, standard = model.network.head(features), model.standard(features)
        torch.testing.assert_close(model(to_float(images["image"])), logits)
    assert not torch.allclose(logits, standard, atol=1e-3)
    (result,) = trainer.test(model, data, verbose=False)
    loss = functional.cross_entropy(logits, images["target"]).item()
    assert result["test/loss"] == pytest.approx(loss, rel=1e-4)
    file = tmp_path / "last.ckpt"
    torch.testing.assert_close(tailmatch.load(file).predict(images["image"]).probs, logits.softmax(dim=1))
    export(str(file), tmp_path / "a.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "a.pt2").module()(images["image"])[1], logits)


def test_both_losses_train_the_backbone_and_each_its_head(tmp_path: Path) -> None:
    def gradients(part: str) -> list[Tensor]:
        method = made(FixMatchABC, draw_images=False, strong_views=2)
        torch.nn.init.normal_(method.standard.weight)
        method.training_step(batch(), 0)
        method.logged[part].backward()
        return [method.network.scale.grad, method.standard.weight.grad]

    backbone, head = gradients("loss_balanced")
    assert backbone.abs() > 1e-3 and head is None
    backbone, head = gradients("loss_labeled")
    assert backbone.abs() > 1e-3 and head.abs().max() > 1e-3


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="balanced_threshold is 1.5"):
        FixMatchABC(3, network=PixelNetwork, balanced_threshold=1.5)
    with pytest.raises(ValueError, match="those of this FixMatchABC are trained to be without it"):
        run(FixMatchABC, tmp_path, LogitAdjustment())
    trainer, model, _ = prepare(FixMatchABC, tmp_path)
    data = Digits(image_size=8, class_counts=ListedCounts([0] + [4] * 9, [6] * 10), labeled_batch_size=6)
    with pytest.raises(ValueError, match="FixMatchABC .*none of class 0"):
        trainer.fit(model, data)
