"""CDMAD: its numbers by hand, what the image without content is, and that every use of a checkpoint is debiased."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.nn import functional

import tailmatch
from tailmatch.callbacks import CDMAD, LogitAdjustment
from tailmatch.callbacks.remedies.cdmad import debias
from tailmatch.lightning_modules import Ensemble, FixMatch, ImageClassifier, ReMixMatch, RotationPretraining, Supervised
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.losses import BalancedSoftmax
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.blank_image import blank_image, blank_logits
from tailmatch.lightning_modules.networks.inputs import to_float
from tests.contract import assert_same, at_epoch_ends, category_network, prepare, run
from tests.lightning_modules.pixel_network import PixelNetwork, image

TRAINER: Any = SimpleNamespace(callbacks=[], state=SimpleNamespace(fn="test"))


def test_numbers_worked_by_hand() -> None:
    logits, bias = torch.tensor([[2.0, 1.5, 1.0]]), torch.tensor([1.0, 0.2, -0.3])
    probs = logits.softmax(dim=1)
    torch.testing.assert_close(probs, torch.tensor([[0.5065, 0.3072, 0.1863]]), atol=5e-5, rtol=0)
    debiased = debias(probs, bias)
    torch.testing.assert_close(debiased, torch.tensor([[0.2703, 0.3649, 0.3649]]), atol=5e-5, rtol=0)
    torch.testing.assert_close(debiased, (logits - bias).softmax(dim=1))
    torch.testing.assert_close(debias(probs, bias + 200), debiased)  # no overflow, and only differences count


def test_permuted_classes_give_permuted_rows() -> None:
    torch.manual_seed(0)
    rows, bias, order = torch.rand(6, 5).softmax(dim=1), torch.randn(5), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(debias(rows[:, order], bias[order]), debias(rows, bias)[:, order])


def test_the_colors_in_pixels() -> None:
    network = CifarResNet(2, depth=8, mean=(0.5, 0.4, 0.25), std=(0.25, 0.5, 0.125))
    expected = {"light": [0.75, 0.9, 0.375], "mean": [0.5, 0.4, 0.25], "black": [0, 0, 0], "white": [1, 1, 1]}
    for color, channels in expected.items():
        made = blank_image(network, color, (4, 6))  # type: ignore[arg-type]
        assert made.shape == (1, 3, 4, 6)
        assert torch.equal(made, torch.tensor(channels).view(1, 3, 1, 1).expand(1, 3, 4, 6).float())
    torch.testing.assert_close(network.normalize(blank_image(network, "light", (4, 6))), torch.ones(1, 3, 4, 6))
    with pytest.raises(ValueError, match="color is 'pink'; it must be one of light, mean, black, white"):
        CDMAD(color="pink")  # type: ignore[arg-type]


def test_the_image_is_normalized_by_running_statistics_and_moves_none() -> None:
    torch.manual_seed(0)
    network = category_network(10)
    network.adapt_categories({"shade": ["light", "dark"], "side": ["right"]}, torch.tensor([[0, 0], [1, -1]]))
    network.train()
    network(network.with_categories(torch.rand(8, 3, 8, 8), None))
    before, generator = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    found = blank_logits(network, "white", (8, 8))
    assert torch.equal(generator, torch.get_rng_state())  # levels are not dropped
    assert_same(before, dict(network.state_dict()), "state")
    assert all(module.training for module in network.modules())
    network.eval()
    torch.testing.assert_close(found, network(torch.ones(1, 3, 8, 8))[0])
    assert not torch.allclose(found, network.train()(torch.ones(1, 3, 8, 8))[0])


class Uneven(PixelNetwork):
    """Pixels whose classes have a bias each, which all images show."""

    def _features(self, normalized: Tensor) -> Tensor:
        return super()._features(normalized) + torch.tensor([0.0, 0.2, 3.0])


def test_pseudo_labels_lose_the_bias_after_the_warm_up() -> None:
    method = FixMatch(3, network=Uneven)
    method.image_size = [1, 3]
    callback = CDMAD(warmup_epochs=2)
    callback._method = method
    probs = method.network(image(1, 0, 0)).softmax(dim=1)
    for epoch in range(4):
        callback._trainer = SimpleNamespace(current_epoch=epoch)  # type: ignore[assignment]
        expected = probs if epoch < 2 else torch.tensor([[1.0, 0, 0]]).softmax(dim=1)
        torch.testing.assert_close(callback.refine(probs, torch.tensor([0])), expected)


def test_alignment_sees_debiased_rows(tmp_path: Path) -> None:
    kept: list[ImageClassifier] = []

    class Align(ReMixMatch):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, strong_views=1, **kwargs)
            kept.append(self)

    run(Align, tmp_path, CDMAD(warmup_epochs=0), max_steps=1)
    assert [type(aligner).__name__ for aligner in kept[0]._aligners] == ["CDMAD", "DistributionAlignment"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("color", ["light", "black"])
def test_every_use_of_a_checkpoint_is_debiased(color: Any, tmp_path: Path) -> None:
    run(FixMatch, tmp_path, at_epoch_ends(tmp_path), CDMAD(warmup_epochs=0, color=color))
    file = str(tmp_path / "last.ckpt")
    trainer, model, data = prepare(FixMatch, tmp_path)
    (result,) = trainer.test(model, data, ckpt_path=file, verbose=False)
    plain = FixMatch(10, network=model.network)
    batch = data.test.__getitems__(list(range(len(data.test))))
    with torch.no_grad():
        plain.eval()
        expected = plain(to_float(batch["image"])) - plain(blank_image(model.network, color, (8, 8)))
        assert not torch.allclose(expected, plain(to_float(batch["image"])), atol=1e-3)
    loss = functional.cross_entropy(expected, batch["target"]).item()
    assert result["test/loss"] == pytest.approx(loss, rel=1e-4)

    probs, pixels = expected.softmax(dim=1), batch["image"]
    loaded = tailmatch.load(file)
    torch.testing.assert_close(loaded.predict(pixels).probs, probs)
    torch.testing.assert_close(Ensemble(10, [file]).eval()(to_float(pixels)).softmax(dim=1), probs)
    for source in (file, loaded):
        export(source, tmp_path / "a.pt2", overwrite=True)
        torch.testing.assert_close(torch.export.load(tmp_path / "a.pt2").module()(pixels)[0], probs)
    larger = torch.randint(256, (5, 3, 12, 12), dtype=torch.uint8)
    export(file, tmp_path / "b.pt2", (12, 12))
    with torch.no_grad():
        expected = plain(to_float(larger)) - plain(blank_image(model.network, color, (12, 12)))
    torch.testing.assert_close(torch.export.load(tmp_path / "b.pt2").module()(larger)[1], expected)
    torch.testing.assert_close(loaded.predict(pixels).probs, probs)  # an export leaves the method as it was
    with pytest.raises(ValueError, match="those of this FixMatch are trained to be without it"):
        prepare(FixMatch, tmp_path, LogitAdjustment())[0].test(model, data, ckpt_path=file, verbose=False)


@pytest.mark.parametrize("kind", [Supervised, FixMatch])
def test_a_checkpoint_that_was_trained_without_it(kind: type[ImageClassifier], tmp_path: Path) -> None:
    run(kind, tmp_path, at_epoch_ends(tmp_path))
    file = str(tmp_path / "last.ckpt")
    trainer, model, data = prepare(kind, tmp_path, CDMAD(color="white"))
    (result,) = trainer.test(model, data, ckpt_path=file, verbose=False)
    assert model.blank is None and not model.balanced_evaluation
    batch = data.test.__getitems__(list(range(len(data.test))))
    with torch.no_grad():
        logits = model.eval()(to_float(batch["image"])) - model(torch.ones(1, 3, 8, 8))
    assert result["test/loss"] == pytest.approx(functional.cross_entropy(logits, batch["target"]).item(), rel=1e-4)
    [rows, *_] = trainer.predict(model, data, ckpt_path=file)  # type: ignore[misc]
    assert isinstance(rows, dict) and model.blank is None


def test_a_fit_continues_with_the_color_that_is_given(tmp_path: Path) -> None:
    run(FixMatch, tmp_path, at_epoch_ends(tmp_path), CDMAD(warmup_epochs=0), max_steps=4)
    trainer, model, data = prepare(FixMatch, tmp_path, CDMAD(warmup_epochs=0, color="white"))
    trainer.fit(model, data, ckpt_path=tmp_path / "last.ckpt")
    assert model.blank == "white"


def test_what_cannot_be_debiased_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Supervised has none: leave it out of the fit, and add it to test"):
        run(Supervised, tmp_path, CDMAD())
    with pytest.raises(ValueError, match="warmup_epochs is 3 and the training has 3 epochs"):
        run(FixMatch, tmp_path, CDMAD(warmup_epochs=3))
    with pytest.raises(ValueError, match="warmup_epochs is -1"):
        CDMAD(warmup_epochs=-1)
    with pytest.raises(ValueError, match="CDMAD and LogitAdjustment both remove the class prior"):
        run(FixMatch, tmp_path, LogitAdjustment(), CDMAD(warmup_epochs=0))
    balanced = Supervised(3, network=PixelNetwork, loss=BalancedSoftmax())
    with pytest.raises(ValueError, match="those of this Supervised are trained to be without it: leave it out"):
        CDMAD().on_test_start(TRAINER, balanced)
    with pytest.raises(ValueError, match="RotationPretraining cannot be debiased by CDMAD, since it does not classify"):
        CDMAD().on_test_start(TRAINER, RotationPretraining(10, network=CifarResNet))
    with pytest.raises(ValueError, match="needs an image classifier, not LightningModule"):
        CDMAD().on_test_start(TRAINER, LightningModule())


def test_an_interrupted_evaluation_leaves_the_method_as_it_was() -> None:
    model, callback = Supervised(3, network=PixelNetwork), CDMAD()
    callback.on_test_start(TRAINER, model)
    assert model.blank == "light" and model.balanced_evaluation
    callback.on_exception(TRAINER, model, KeyboardInterrupt())
    assert model.blank is None and not model.balanced_evaluation


def test_a_network_of_unknown_image_size_is_not_exported(tmp_path: Path) -> None:
    model = Supervised(3, network=PixelNetwork)
    model.blank = "mean"
    with pytest.raises(ValueError, match="the Supervised is debiased by an image without content, and does not say"):
        export(model, tmp_path / "a.pt2")
