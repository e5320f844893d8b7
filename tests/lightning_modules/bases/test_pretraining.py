"""Nearest labeled neighbors: votes by hand, against scikit-learn, and from the data module's images."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import MoCoPretraining, RotationPretraining, Supervised
from tailmatch.lightning_modules.bases.pretraining import knn_scores
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.networks.inputs import to_float


def test_votes_by_hand() -> None:
    # Cosines of (1, 0) to the bank: 1, 0.8, 0.6, -1; the lengths do not count.
    bank = torch.tensor([[2.0, 0], [0.8, 0.6], [3, 4], [-1, 0]])
    scores = knn_scores(torch.tensor([[5.0, 0]]), bank, torch.tensor([1, 0, 0, 2]), 3, neighbors=3, temperature=0.5)
    votes = [math.exp(0.8 / 0.5) + math.exp(0.6 / 0.5), math.exp(1 / 0.5)]  # class 2 is beyond the three nearest
    shares = scores.softmax(dim=1)[0].tolist()
    assert shares == pytest.approx([votes[0] / sum(votes), votes[1] / sum(votes), 0])
    assert scores.isfinite().all() and scores[0, 2] < -80
    nearest = knn_scores(torch.tensor([[5.0, 0]]), bank, torch.tensor([1, 0, 0, 2]), 3, neighbors=1, temperature=0.5)
    assert nearest.argmax().item() == 1 and nearest[0, 1].item() == 0


def test_more_neighbors_than_images_are_all_of_them() -> None:
    features, bank = torch.randn(4, 3), torch.randn(5, 3)
    targets = torch.tensor([0, 1, 1, 0, 1])
    assert torch.equal(
        knn_scores(features, bank, targets, 2, neighbors=200, temperature=0.07),
        knn_scores(features, bank, targets, 2, neighbors=5, temperature=0.07),
    )


def test_shares_are_those_of_scikit_learn() -> None:
    random = torch.Generator().manual_seed(0)
    features, bank = torch.randn(40, 6, generator=random), torch.randn(90, 6, generator=random)
    targets = torch.randint(4, (90,), generator=random)

    def weights(distance: Any) -> Any:  # of unit vectors: distance**2 = 2 - 2 cosine
        return torch.exp((1 - torch.as_tensor(distance) ** 2 / 2) / 0.07).numpy()

    reference = KNeighborsClassifier(15, weights=weights, algorithm="brute")
    reference.fit(functional.normalize(bank).double().numpy(), targets.numpy())
    expected = torch.from_numpy(reference.predict_proba(functional.normalize(features).double().numpy()))
    scores = knn_scores(features, bank, targets, 4, neighbors=15, temperature=0.07)
    torch.testing.assert_close(scores.softmax(dim=1).double(), expected, rtol=1e-3, atol=1e-5)


def digits(**kwargs: Any) -> Digits:
    return Digits(
        class_counts=ListedCounts([4, 3, 2] + [1] * 7, [6] * 10),
        labeled_batch_size=8,
        steps_per_epoch=2,
        eval_batch_size=7,
        val_holdout=2,
        test_holdout=3,
        **kwargs,
    )


def trainer(folder: Path, **kwargs: Any) -> Trainer:
    return Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=folder, logger=False, use_distributed_sampler=False,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_labeled_images_vote_by_the_features_of_the_evaluated_weights(ema_decay: float | None, tmp_path: Path) -> None:
    seed_everything(3)
    data = digits()
    method = RotationPretraining(num_classes=10, network=partial(CifarResNet, depth=8), ema_decay=ema_decay)
    run = trainer(tmp_path, enable_checkpointing=False)
    run.fit(method, data)
    validated = run.callback_metrics["val/balanced_accuracy"]
    loss = run.callback_metrics["val/loss"]
    assert method._bank is None and not any("bank" in key for key in method.state_dict())

    method.eval()  # a fit ends with the averaged weights in place, those that were validated
    with torch.no_grad():
        rows = data.labeled.images.pixels[data.labeled.rows]
        bank, targets = method.network.features(to_float(rows)), data.labeled.targets
        assert data.val is not None
        features = method.network.features(to_float(data.val.images.pixels[data.val.rows]))
    scores = knn_scores(features, bank, targets, 10, len(bank), 0.07)
    hits = scores.argmax(dim=1) == data.val.targets
    assert validated.item() == pytest.approx(hits.float().mean().item())  # two images a class: mean recall is top 1
    assert loss.item() == pytest.approx(functional.cross_entropy(scores, data.val.targets).item(), rel=1e-4)


def test_outside_of_an_evaluation_there_is_nothing_to_compare_with() -> None:
    method = RotationPretraining(num_classes=10, network=partial(CifarResNet, depth=8))
    with pytest.raises(ValueError, match="RotationPretraining classifies by labeled images"):
        method(torch.rand(1, 3, 8, 8))


STILL: Any = {"optimizer": partial(torch.optim.SGD, lr=1e-30)}
"""Steps that change no weight."""


def test_pretrained_weights_begin_a_new_fit_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed_everything(1)
    source = RotationPretraining(num_classes=10, network=partial(CifarResNet, depth=8))
    file = tmp_path / "rotation.ckpt"
    torch.save({"state_dict": source.state_dict()}, file)

    def supervised(ema_decay: float | None = None) -> Supervised:
        network = partial(CifarResNet, depth=8)
        return Supervised(num_classes=10, network=network, ema_decay=ema_decay, pretrained=str(file), **STILL)

    def stem(method: Supervised | MoCoPretraining) -> Tensor:
        return method.network.backbone[0].weight  # type: ignore[index,return-value]

    frozen = {"limit_train_batches": 1, "limit_val_batches": 0}
    averaged = supervised(ema_decay=0.9)  # a fit ends with the averages, which begin from the pretrained weights
    trainer(tmp_path, **frozen).fit(averaged, digits())
    assert torch.equal(stem(averaged), stem(source))
    method = supervised()
    trainer(tmp_path, **frozen).fit(method, digits())
    assert torch.equal(stem(method), stem(source))
    assert f"pretrained {file}: 42 of 46 tensors loaded from 'network.'" in capsys.readouterr().out

    run = trainer(tmp_path)
    with torch.no_grad():
        stem(method).add_(1)
    run.fit(method, digits())
    assert torch.equal(stem(method), stem(source) + 1)  # the pretrained weights are not loaded once more
    run.save_checkpoint(tmp_path / "own.ckpt")

    contrast = MoCoPretraining(
        num_classes=10, network=partial(CifarResNet, depth=8), queue_size=8, pretrained=str(file), **STILL
    )
    trainer(tmp_path, **frozen).fit(contrast, digits())
    assert torch.equal(stem(contrast), stem(source))
    torch.testing.assert_close(contrast.key_network.backbone[0].weight, stem(source))  # type: ignore[index]
    assert torch.equal(contrast.key_network.mean, contrast.network.mean)

    file.unlink()
    longer = trainer(tmp_path)
    longer.fit_loop.max_epochs = 2
    resumed = supervised()
    longer.fit(resumed, digits(), ckpt_path=tmp_path / "own.ckpt")
    assert longer.global_step == 4
    trainer(tmp_path).test(supervised(), digits(), ckpt_path=str(tmp_path / "own.ckpt"), verbose=False)
    with pytest.raises(ValueError, match="rotation.ckpt' does not exist"):
        trainer(tmp_path).fit(supervised(), digits())


@pytest.mark.parametrize(("name", "value"), [("knn_neighbors", 0), ("knn_temperature", 0.0)])
def test_bad_values_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        RotationPretraining(num_classes=3, network=partial(CifarResNet, depth=8), **{name: value})
