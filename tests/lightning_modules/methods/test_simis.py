"""How many images SimiS adds, which ones, and that a resumed run has them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tailmatch.datamodules import ListedCounts
from tailmatch.lightning_modules import SimiS
from tailmatch.lightning_modules.inference.predict_set import predict_set
from tailmatch.lightning_modules.methods import simis
from tailmatch.lightning_modules.methods.simis import missing, most_confident
from tests.contract import Kill, Killed, assert_same_training, at_epoch_ends, last, prepare, saved
from tests.lightning_modules.pixel_network import PixelNetwork, image


def test_the_missing_images_of_each_epoch() -> None:
    counts = torch.tensor([100, 10, 1])
    shares, seen = counts / counts.sum(), []
    for epoch in range(4):
        added = missing(shares, counts, epoch / 4)
        shares = (counts + added) / (counts + added).sum()
        seen.append(added.tolist())
    assert seen == [[0, 0, 0], [0, 13, 14], [0, 15, 17], [0, 18, 19]]


def test_a_tenth_of_the_gap_of_ten_classes_is_filled() -> None:
    counts = torch.tensor([int(1500 * 100 ** (-k / 9)) for k in range(10)])
    assert missing(counts / counts.sum(), counts, 1.0).tolist() == [0, 60, 96, 117, 130, 138, 143, 145, 147, 148]


def test_the_most_confident_of_each_class_are_chosen() -> None:
    confidence = torch.tensor([0.4, 0.9, 0.6, 0.9, 0.3, 0.5])
    label = torch.tensor([0, 0, 1, 0, 2, 1])
    assert most_confident(confidence, label, torch.tensor([2, 1, 5])).tolist() == [False, True, True, True, True, False]


def test_the_labeled_loss_is_the_mean_over_the_grown_set() -> None:
    method = SimiS(3, network=PixelNetwork, threshold=1.0)
    logged: dict[str, torch.Tensor] = {}
    method.track = logged.update  # type: ignore[method-assign,assignment]
    method.class_counts.copy_(torch.tensor([4, 2, 2]))
    method.added.adapt(8)
    method.added.labels[3] = 2
    rows = [[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [5.0, 0.0, 0.0]]
    views = [image(*row) for row in rows]
    batch = {
        "labeled": {"weak": torch.cat(views[:2]), "target": torch.tensor([0, 1])},
        "unlabeled": {"weak": torch.cat(views[2:]), "strong": [torch.cat(views[2:])], "index": torch.tensor([3, 1])},
    }
    loss = method.training_step(batch, 0)  # each labeled image stands for 8 / 2, and each unlabeled one for 8 / 2
    losses = [torch.tensor(rows[i]).log_softmax(dim=0)[k] for i, k in enumerate([0, 1, 2])]
    assert loss.item() == pytest.approx(-sum(losses).item() / 3, rel=1e-5)  # type: ignore[union-attr]
    assert logged["added"].item() == 0.5 and method.prior_in_logits().tolist() == [4, 2, 3]
    loss.backward()
    assert method.network.get_parameter("scale").grad is not None


def fit(folder: Path, *callbacks: object, ckpt: Path | None = None) -> None:
    trainer, model, data = prepare(SimiS, folder, *callbacks, limit_val_batches=0)  # type: ignore[arg-type]
    data.class_counts_rule = ListedCounts([50, 9, 8, 7, 6, 5, 4, 3, 2, 1], [6] * 10)
    trainer.fit(model, data, ckpt_path=ckpt)


def test_a_run_that_is_killed_after_a_filling_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages: list[bool] = []

    def predicted(trainer: Any, *args: Any) -> Any:
        averages.append(trainer.lightning_module._averaging._swapped)
        return predict_set(trainer, *args)

    monkeypatch.setattr(simis, "predict_set", predicted)
    fit(tmp_path, at_epoch_ends(tmp_path / "whole"))
    with pytest.raises(Killed):
        fit(tmp_path, last(tmp_path / "killed", every_n_train_steps=9), Kill(10))
    state = saved(tmp_path / "killed")["state_dict"]
    assert state["filled"] == 2 and (state["added.labels"] >= 0).any()
    counts = torch.tensor([50, 9, 8, 7, 6, 5, 4, 3, 2, 1])
    limit = missing(counts / 95, torch.tensor([95]), 1 / 3)
    added = torch.bincount(state["added.labels"][state["added.labels"] >= 0], minlength=10)
    assert (added <= limit).all() and averages and all(averages)
    torch.testing.assert_close(state["shares"], (counts + added) / (95 + added.sum()))
    fit(tmp_path, at_epoch_ends(tmp_path / "resumed"), ckpt=tmp_path / "killed" / "last.ckpt")
    assert_same_training(saved(tmp_path / "whole"), saved(tmp_path / "resumed"))


def test_without_an_end_nothing_says_how_many_to_add(tmp_path: Path) -> None:
    trainer, model, data = prepare(SimiS, tmp_path)
    trainer.fit_loop.max_epochs = -1
    with pytest.raises(ValueError, match="set trainer.max_epochs"):
        trainer.fit(model, data)
