"""CoSSL's enhancement by hand, its three phases, and what is evaluated."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import tailmatch
from tailmatch.callbacks import LogitAdjustment
from tailmatch.lightning_modules import CoSSL
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.methods.cossl import enhanced, tail_chances
from tests.contract import at_epoch_ends, run
from tests.lightning_modules.pixel_network import PixelNetwork, image


def test_rare_classes_are_enhanced_more_often() -> None:
    assert tail_chances(torch.tensor([100, 10, 1])).tolist() == pytest.approx([0, 0.9, 0.99])


def test_features_are_mixed_by_their_share() -> None:
    own, others = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 0.0], [7.0, 7.0]])
    found = enhanced(own, others, torch.tensor([0.75, 1.0]))
    assert found.tolist() == [[2.0, 1.5], [3.0, 4.0]]


def made(done: int, **arguments: Any) -> tuple[CoSSL, dict[str, Tensor]]:
    """A method at a step of 10, whose averaged network has features that are twice the pixels."""
    settings = {"warmup": 0.4, "teacher_steps": 2, "threshold": 0.5, "strong_views": 1, **arguments}
    method = CoSSL(3, network=PixelNetwork, **settings)
    logged: dict[str, Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    method._trainer = SimpleNamespace(global_step=done, max_steps=10, max_epochs=-1)  # type: ignore[assignment]
    method.class_counts.copy_(torch.tensor([100, 10, 1]))
    assert method._averaging is not None
    method._averaging._average = {"network.scale": torch.tensor(2.0)}
    with torch.no_grad():
        method.teacher.linear.weight.copy_(torch.eye(3).flip(0))  # the teacher says 2 where the network says 0
        method.teacher.linear.bias.zero_()
    return method, logged


def batch() -> Any:
    return {
        "labeled": {"weak": image(1, 0, 0), "target": torch.tensor([0])},
        "unlabeled": {"weak": image(4, 0, 0), "strong": [image(0, 1, 0)], "index": torch.tensor([4])},
        "balanced": {"strong": image(0, 0, 1), "target": torch.tensor([2]), "share": torch.tensor([0.75])},
    }


@pytest.mark.parametrize(("done", "trains", "teaches"), [(1, False, False), (2, True, False), (4, True, True)])
def test_the_teacher_is_trained_and_then_teaches(done: int, trains: bool, teaches: bool) -> None:
    method, logged = made(done)
    before = method.teacher.linear.weight.clone()
    loss = method.training_step(batch(), 0)
    strong = torch.tensor([[0.0, 1.0, 0.0]])
    label = 2 if teaches else 0
    expected = functional.cross_entropy(strong, torch.tensor([label]))
    assert logged["loss_unlabeled"].item() == pytest.approx(expected.item(), rel=1e-6)
    # 0.75 of (0, 0, 2) and 0.25 of (0, 2, 0), by the teacher's flipped identity:
    own = functional.cross_entropy(torch.tensor([[1.5, 0.5, 0.0]]), torch.tensor([2])) if trains else torch.zeros(())
    assert logged["loss_teacher"].item() == pytest.approx(own.item(), rel=1e-6)
    assert torch.equal(method.teacher.linear.weight, before) != trains
    assert loss.item() == pytest.approx((logged["loss_labeled"] + expected).item(), rel=1e-6)


def test_the_averaged_teacher_follows_and_is_evaluated_once_it_teaches() -> None:
    method, _ = made(3, ema_decay=0.75)
    head: Any = method.network.head
    with torch.no_grad():
        head.teacher.weight.fill_(1.0)
        head.teacher.bias.fill_(0.0)
    images = image(0.5, 1, 0)
    for done in (3, 4):
        method._trainer.global_step = done  # type: ignore[union-attr]
        expected = 0.75 * head.teacher.weight
        method.training_step(batch(), 0)
        torch.testing.assert_close(head.teacher.weight, expected + 0.25 * method.teacher.linear.weight)
        method.eval()
        logits = method.network.features(images)
        assert torch.equal(method(images), head.teacher(logits) if done == 4 else logits)
        method.train()
        assert torch.equal(method(images), logits)


def test_views_of_the_third_stream_come_with_shares() -> None:
    method, _ = made(2, smallest_share=0.6)
    images = torch.randint(256, (3000, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    target = torch.arange(3).repeat_interleave(1000)
    method.weak = method.strong = torch.nn.Identity()  # type: ignore[assignment]
    torch.manual_seed(0)
    made_batch: Any = method.make_views(
        {
            "labeled": {"image": images[:1]},
            "unlabeled": {"image": images[:1]},
            "balanced": {"image": images, "target": target},
        }
    )
    share = made_batch["balanced"]["share"].view(3, 1000)
    assert (share[0] == 1).all()
    assert (share < 1).float().mean(dim=1).tolist() == pytest.approx([0, 0.9, 0.99], abs=0.03)
    mixed = share[share < 1]
    assert mixed.min() >= 0.6 and mixed.mean().item() == pytest.approx(0.8, abs=0.01)
    method._trainer.global_step = 1  # type: ignore[union-attr]
    early: Any = method.make_views({name: {"image": images[:1]} for name in method.streams})
    assert early["balanced"].keys() == {"image"}


def test_a_loaded_checkpoint_and_an_exported_file_predict_by_the_averaged_teacher(tmp_path: Path) -> None:
    method = partial(CoSSL, warmup=0.5, teacher_steps=3)
    trainer = run(method, tmp_path, at_epoch_ends(tmp_path), limit_val_batches=0)
    loaded: Any = tailmatch.load(tmp_path / "last.ckpt").eval()
    head = trainer.lightning_module.network.head  # type: ignore[union-attr]
    assert head.began and torch.equal(loaded.network.head.teacher.weight, head.teacher.weight)  # type: ignore[union-attr,operator]
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = loaded(images / 255)
        assert torch.equal(logits, loaded.network.head.teacher(loaded.network.features(images / 255)))
    export(str(tmp_path / "last.ckpt"), tmp_path / "cossl.pt2")
    _, exported = torch.export.load(tmp_path / "cossl.pt2").module()(images)
    torch.testing.assert_close(exported, logits)


def test_post_hoc_adjustment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="those of this CoSSL are trained to be without it: leave it out"):
        run(CoSSL, tmp_path, LogitAdjustment())


@pytest.mark.parametrize("name", ["warmup", "teacher_steps", "smallest_share", "teacher_lr", "teacher_weight_decay"])
def test_bad_values_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1"):
        CoSSL(3, network=PixelNetwork, **{name: -1})
