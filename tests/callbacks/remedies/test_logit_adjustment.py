"""Post-hoc logit adjustment: predictions by hand, and a training that does not notice."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from tailmatch.callbacks import LogitAdjustment
from tailmatch.lightning_modules import FixMatch, ImageClassifier, Supervised
from tailmatch.lightning_modules.losses import BalancedSoftmax, LogitAdjusted
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.contract import assert_same, at_epoch_ends, prepare, run
from tests.lightning_modules.pixel_network import PixelNetwork

TRAINER: Any = None  # the callback asks it nothing


def method(*counts: int) -> ImageClassifier:
    model = Supervised(num_classes=2, network=PixelNetwork)
    model.class_counts.copy_(torch.tensor(counts))
    return model


IMAGES = torch.tensor([[1.0, 0.0], [3.0, 0.0]]).view(2, 1, 1, 2).expand(2, 3, 1, 2)


@pytest.mark.parametrize("stage", ["validation", "test", "predict"])
def test_predictions_by_hand_during_evaluation_only(stage: str) -> None:
    model, callback = method(9, 1), LogitAdjustment()
    getattr(callback, f"on_{stage}_start")(TRAINER, model)
    # The difference of log prior, log 9 = 2.197, turns the first image (1 against 0) and not the second (3 against 0).
    expected = torch.tensor([[1 - math.log(0.9), -math.log(0.1)], [3 - math.log(0.9), -math.log(0.1)]])
    torch.testing.assert_close(model(IMAGES), expected)
    assert model(IMAGES).argmax(dim=1).tolist() == [1, 0]
    assert torch.equal(model.network(IMAGES), IMAGES[:, 0, 0])  # what a training step calls
    getattr(callback, f"on_{stage}_end")(TRAINER, model)
    assert torch.equal(model(IMAGES), IMAGES[:, 0, 0])


def test_tau_and_a_given_prior() -> None:
    model = method(9, 1)
    assert LogitAdjustment(tau=2.0).shift(model).tolist() == pytest.approx([2 * math.log(0.9), 2 * math.log(0.1)])
    assert LogitAdjustment(tau=0.0).shift(model).tolist() == [0, 0]
    assert LogitAdjustment(prior=[1, 3]).shift(model).tolist() == pytest.approx([math.log(0.25), math.log(0.75)])
    assert LogitAdjustment(prior=[0.2, 0.8]).shift(model).tolist() == pytest.approx([math.log(0.2), math.log(0.8)])


def test_a_method_names_the_prior_of_its_logits() -> None:
    class Estimating(Supervised):
        def prior_in_logits(self) -> torch.Tensor:
            return torch.tensor([0.25, 0.75])

    model = Estimating(num_classes=2, network=PixelNetwork)
    assert LogitAdjustment(tau=2.0).shift(model).tolist() == pytest.approx([2 * math.log(0.25), 2 * math.log(0.75)])
    assert LogitAdjustment(prior=[1, 1]).shift(model).tolist() == pytest.approx([math.log(0.5)] * 2)


@pytest.mark.parametrize("loss", [LogitAdjusted(), LogitAdjusted(0.5), BalancedSoftmax()])
def test_balanced_logits_are_not_adjusted_again(loss: LogitAdjusted) -> None:
    balanced = Supervised(num_classes=2, network=PixelNetwork, loss=loss)
    balanced.class_counts.fill_(1)
    for start in (LogitAdjustment().on_fit_start, LogitAdjustment(prior=[1, 1]).on_test_start):
        with pytest.raises(ValueError, match="those of this Supervised are trained to be without it: leave it out"):
            start(TRAINER, balanced)
    LogitAdjustment(prior=[1, 1]).on_fit_start(TRAINER, Supervised(2, network=PixelNetwork, loss=LogitAdjusted(0)))


class Balancing(Callback):
    """A remedy that balances logits in the labeled loss."""

    balances = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, FixMatch)
        pl_module.add_shift(self)

    def labeled_shift(self) -> torch.Tensor:
        return torch.arange(10.0)

    def unlabeled_shift(self) -> None:
        return None


def test_a_remedy_that_balances_refuses_it_in_the_fit_and_for_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="those of this FixMatch are trained to be without it"):
        run(FixMatch, tmp_path, LogitAdjustment(), Balancing())
    run(FixMatch, tmp_path, at_epoch_ends(tmp_path), Balancing())
    trainer, model, data = prepare(FixMatch, tmp_path, LogitAdjustment())
    with pytest.raises(ValueError, match="those of this FixMatch are trained to be without it"):
        trainer.test(model, data, ckpt_path=str(tmp_path / "last.ckpt"), verbose=False)


def test_an_interrupted_evaluation_leaves_the_method_as_it_was() -> None:
    model, callback = method(9, 1), LogitAdjustment()
    callback.on_validation_start(TRAINER, model)
    callback.on_exception(TRAINER, model, KeyboardInterrupt())
    assert torch.equal(model(IMAGES), IMAGES[:, 0, 0])


def test_what_cannot_be_adjusted_is_refused() -> None:
    with pytest.raises(ValueError, match="none of class 1 "):
        LogitAdjustment().on_fit_start(TRAINER, method(9, 0))
    with pytest.raises(ValueError, match="prior has 3 entries; it needs one for each of 2 classes"):
        LogitAdjustment(prior=[1, 2, 3]).on_fit_start(TRAINER, method(9, 1))
    with pytest.raises(ValueError, match=r"prior\[1\] is 0; it must be above 0"):
        LogitAdjustment(prior=[1, 0])
    with pytest.raises(ValueError, match="tau is -1"):
        LogitAdjustment(tau=-1)
    with pytest.raises(ValueError, match="needs an image classifier, not LightningModule"):
        LogitAdjustment().on_fit_start(TRAINER, LightningModule())


@pytest.mark.parametrize("kind", [Supervised, FixMatch])
def test_training_is_the_same_and_validation_is_adjusted(kind: type[ImageClassifier], tmp_path: Path) -> None:
    def fit(name: str, *callbacks: LogitAdjustment) -> tuple[Trainer, ImageClassifier]:
        trainer = run(kind, tmp_path, at_epoch_ends(tmp_path / name), *callbacks)
        assert isinstance(trainer.lightning_module, ImageClassifier)
        return trainer, trainer.lightning_module

    _, plain = fit("plain")
    trainer, adjusted = fit("adjusted", LogitAdjustment(prior=range(1, 11)))
    saved = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("plain", "adjusted")]
    for part in ("state_dict", "trained_weights", "optimizer_states"):
        assert_same(saved[0][part], saved[1][part], part)
    validation = [model.evaluations["val"].scalars["loss"] for model in (plain, adjusted)]
    assert validation[0] != validation[1]

    # A checkpoint that was trained without it, tested with it: the loss of the adjusted logits.
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    (result,) = trainer.test(adjusted, data, ckpt_path=str(tmp_path / "plain" / "last.ckpt"), verbose=False)
    fresh = kind(num_classes=10, network=partial(CifarResNet, depth=8))
    fresh.load_state_dict(saved[0]["state_dict"])
    fresh.eval()
    batch = data.test.__getitems__(list(range(len(data.test))))
    prior = torch.arange(1, 11) / 55
    with torch.no_grad():
        logits = fresh(to_float(batch["image"])) - prior.log()
    assert result["test/loss"] == pytest.approx(nn.functional.cross_entropy(logits, batch["target"]).item(), rel=1e-4)
