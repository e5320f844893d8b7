"""SC-SSL's losses by hand, its evaluation without bias, and the pass that counts the unlabeled images."""

import math
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tailmatch.callbacks import LogitAdjustment
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import SCSSL, FixMatch
from tailmatch.lightning_modules.methods.scssl import accept
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.bias_free_head import BiasFreeHead
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tests.contract import Kill, Killed, assert_same, assert_same_training, at_epoch_ends, last, run, saved
from tests.joint_batches import SmoothNetwork
from tests.lightning_modules.pixel_network import PixelNetwork, image
from tests.process_group import on_two_processes

SMALL = partial(SCSSL, threshold=0.2, bias_limit=0.0)


class LinearPixels(PixelNetwork):
    """Pixels through a linear head with bias."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.head = nn.Linear(num_classes, num_classes)


def with_weights(linear: nn.Module, factor: float, *bias: float) -> None:
    """Set a linear layer to `factor x + bias`."""
    linear.load_state_dict({"weight": factor * torch.eye(len(bias)), "bias": torch.tensor(bias)})


def method_of_pixels(**kwargs: float) -> tuple[SCSSL, dict[str, Tensor]]:
    """A method whose heads have the pixels times 1 (basic), 1 (output, with a bias) and 2 (expansive)."""
    method = SCSSL(num_classes=3, network=LinearPixels, **kwargs)  # type: ignore[arg-type]
    with_weights(method.basic, 1, 0, 0, 0)
    with_weights(method.network.get_submodule("head.linear"), 1, 0.4, -0.1, -0.3)
    with_weights(method.expansive, 2, 0, 0, 0)
    method.class_counts.copy_(torch.tensor([70, 20, 10]))
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    return method, logged


def cross_entropy(target: int, *logits: float) -> float:
    return math.log(sum(math.exp(z) for z in logits)) - logits[target]


def test_the_output_head_is_evaluated_without_its_bias() -> None:
    method, _ = method_of_pixels()
    images = image(1.6, 1.6, 1.3)
    with torch.no_grad():
        trained = method.network(images).softmax(dim=1)
        with evaluation_mode(method):
            evaluated = method(images)
    torch.testing.assert_close(trained, torch.tensor([[0.5065, 0.3072, 0.1863]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(evaluated, torch.tensor([[1.6, 1.6, 1.3]]))
    probs = evaluated.softmax(dim=1)
    torch.testing.assert_close(probs, torch.tensor([[0.3649, 0.3649, 0.2703]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("tau", "expected"),
    [(0, (0.6803, 1.1803, 1.6803)), (2, (0.0555, 3.0610, 4.9473)), (4, (0.0042, 5.5152, 8.7878))],
)
@pytest.mark.parametrize("label", range(3))
def test_labeled_losses_by_hand(tau: float, expected: tuple[float, ...], label: int) -> None:
    method, logged = method_of_pixels(tau_output=tau, tau_expansive=tau)
    with_weights(method.network.get_submodule("head.linear"), 1, 0, 0, 0)
    with_weights(method.expansive, 1, 0, 0, 0)
    method.training_step(batch_of(image(2, 1.5, 1), label, image(0, 0, 0), image(0, 0, 0)), 0)
    assert logged["loss_labeled"].item() == pytest.approx(0.6803 + 0.5 * label, abs=1e-4)
    for name in ("output", "expansive"):
        assert logged[f"loss_labeled_{name}"].item() == pytest.approx(expected[label], abs=1e-4)


def batch_of(labeled: Tensor, label: int, weak: Tensor, strong: Tensor) -> dict[str, dict[str, Tensor]]:
    return {
        "labeled": {"weak": labeled, "target": torch.tensor([label])},
        "unlabeled": {"weak": weak, "strong": [strong], "index": torch.arange(len(weak))},  # type: ignore[dict-item]
    }


def test_each_head_labels_and_selects_for_itself() -> None:
    method, logged = method_of_pixels(lambda_heads=3.0)
    method.control.thresholds.copy_(torch.tensor([[0.95, 0.6, 0.95], [0.95, 0.95, 0.5]]))
    weak = torch.cat([image(0, 2, 0), image(0, 0, 0.6)])
    strong = torch.cat([image(1, 0, 0), image(0, 1, 0)])
    loss = method.training_step(batch_of(image(1, 0, 0), 0, weak, strong), 0)
    # Basic, threshold 0.95: softmax(0, 2, 0) has 0.787. Output: (0.4, 1.9, -0.3) has 0.753, above 0.6; (0.4, -0.1, 0.3)
    # has label 0. Expansive: (0, 4, 0) has 0.9647, label 1; (0, 0, 1.2) has 0.624, label 2, above 0.5.
    assert [logged[f"selected{head}"].item() for head in ("", "_output", "_expansive")] == [0, 0.5, 1]
    output = cross_entropy(1, 1.4, -0.1, -0.3) / 2
    expansive = (cross_entropy(1, 2, 0, 0) + cross_entropy(2, 0, 2, 0)) / 2
    assert logged["loss_unlabeled_output"].item() == pytest.approx(output, rel=1e-5)
    assert logged["loss_unlabeled_expansive"].item() == pytest.approx(expansive, rel=1e-5)
    labeled = sum(logged[f"loss_labeled{head}"].item() for head in ("", "_output", "_expansive"))
    assert loss.item() == pytest.approx(labeled + 3 * (output + expansive), rel=1e-5)


def test_no_gradient_flows_through_labels_and_all_heads_reach_the_features() -> None:
    method, _ = method_of_pixels(threshold=0.0)
    weak, strong = image(0, 2, 0).clone().requires_grad_(), image(1, 0, 0).clone().requires_grad_()
    method.training_step(batch_of(image(1, 0, 0), 0, weak, strong), 0).backward()
    assert weak.grad is None and strong.grad is not None
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.parameters())


def test_a_row_at_its_threshold_is_accepted() -> None:
    label, accepted = accept(torch.zeros(2, 4), torch.tensor([0.25, 1, 1, 1]))
    assert label.tolist() == [0, 0] and accepted.tolist() == [1, 1]


def test_only_a_linear_head_with_bias_can_leave_it_out() -> None:
    with pytest.raises(SettingsError, match="head is a NormalizedLinear, and it must be linear with a bias"):
        SCSSL(3, network=partial(CifarResNet, depth=8, cosine_scale=30.0))
    with pytest.raises(SettingsError, match="head is a Linear without bias"):
        BiasFreeHead(nn.Linear(2, 2, bias=False))
    first = SCSSL(3, network=LinearPixels)
    assert set(SCSSL(3, network=first.network).state_dict()) == set(first.state_dict())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tau_output", -1),
        ("tau_expansive", -1),
        ("lambda_heads", -1),
        ("estimation_epochs", 0),
        ("bias_limit", -1),
        ("threshold_step", -1),
        ("floor", 2),
    ],
)
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"{name} is {value}"):
        SCSSL(3, network=LinearPixels, **{name: value})  # type: ignore[arg-type]


def test_a_training_that_never_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="estimation_epochs is 3 and the training has 3 epochs"):
        run(partial(SCSSL, estimation_epochs=3), tmp_path)


def test_logit_adjustment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LogitAdjustment removes the class prior"):
        run(partial(SMALL, estimation_epochs=1), tmp_path, LogitAdjustment())


def test_a_run_that_is_stopped_before_the_count_resumes_to_the_same_bits(tmp_path: Path) -> None:
    method = partial(SMALL, estimation_epochs=2)  # counts before step 9
    run(method, tmp_path, at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        run(method, tmp_path, last(tmp_path / "killed", every_n_train_steps=7), Kill(8))
    before = saved(tmp_path / "killed")["state_dict"]
    assert before["control.anchor"] == -1 and before["control.thresholds"].unique().numel() == 1
    run(method, tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=tmp_path / "killed" / "last.ckpt")
    whole = saved(tmp_path / "whole")
    assert whole["state_dict"]["control.anchor"] >= 0
    assert_same_training(whole, saved(tmp_path / "resumed"))


class Counting(SCSSL):
    """Keeps the counts beside those of all images in one batch, by averaged and by trained weights."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **{"estimation_epochs": 1, "ema_decay": 0.99, **kwargs})
        self.seen: list[list[int]] = []

    def predicted_counts(self) -> Tensor:
        counts = super().predicted_counts()
        images = self.trainer.datamodule.unlabeled.__getitems__(list(range(60)))["image"]  # type: ignore[attr-defined]
        self.seen = [counts.tolist()]
        for weights in (self.evaluated_weights(), nullcontext()):
            with weights, evaluation_mode(self.network), torch.no_grad():
                predicted = self.network(images.float() / 255).argmax(dim=1)
            self.seen.append(predicted.bincount(minlength=10).tolist())
        return counts


def test_the_averaged_weights_count_all_unlabeled_images(tmp_path: Path) -> None:
    counted, averaged, trained = run(Counting, tmp_path).lightning_module.seen  # type: ignore[union-attr]
    assert counted == averaged != trained and sum(counted) == 60


def count_on_process(rank: int, folder: Path) -> None:
    os.environ["LOCAL_RANK"] = str(rank)  # so that Lightning starts no more processes
    trainer = run(Counting, folder, devices=2, strategy="ddp", network=SmoothNetwork)  # BatchNorms differ on processes
    model = trainer.lightning_module
    assert isinstance(model, Counting)
    torch.save({"seen": model.seen, "state": model.control.state_dict()}, folder / f"counts-{rank}.pt")


def test_two_processes_count_each_image_once(tmp_path: Path) -> None:
    on_two_processes(count_on_process, tmp_path)
    first, second = (torch.load(tmp_path / f"counts-{rank}.pt", weights_only=True) for rank in range(2))
    assert_same(first["state"], second["state"], "ranks")
    for each in (first, second):
        counted, averaged, _ = each["seen"]
        assert counted == averaged and sum(counted) == 60 and each["state"]["anchor"] >= 0


def test_without_the_other_losses_a_step_is_fixmatchs() -> None:
    method, _ = method_of_pixels(lambda_heads=0.0, threshold=0.5)
    weak, strong = image(0, 2, 0), image(1, 0, 0)
    made = batch_of(image(1, 0, 0), 0, weak, strong)
    method.training_step(made, 0).backward()
    plain = FixMatch(3, network=LinearPixels, threshold=0.5)
    with_weights(plain.network.head, 1, 0, 0, 0)
    plain.track = lambda **values: None  # type: ignore[method-assign]
    plain.training_step(made, 0).backward()
    for mine, theirs in zip(method.basic.parameters(), plain.network.head.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
