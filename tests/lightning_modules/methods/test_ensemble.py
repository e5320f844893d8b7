"""Ensembles: means worked by hand, the members' own preprocessing, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor

from tailmatch.datamodules import Digits
from tailmatch.lightning_modules import Ensemble, Supervised
from tailmatch.lightning_modules.methods.ensemble import MeanNetwork, log_mean_probs, mean_logits, normalized_weights
from tailmatch.lightning_modules.networks import CifarResNet, Network, WideResNet
from tests.contract import at_epoch_ends, run
from tests.trained_files import shaken, trained_file

LOGITS = torch.tensor([[[1.0, 2.0, 5.0]], [[1.0, 1.0, 2.0]]]).log()  # probs 1/8, 2/8, 5/8 and 1/4, 1/4, 1/2
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def test_means_by_hand() -> None:
    weights = torch.tensor([0.75, 0.25])
    probs = torch.tensor([[0.75 / 8 + 0.25 / 4, 0.25, 0.75 * 5 / 8 + 0.25 / 2]])
    torch.testing.assert_close(log_mean_probs(LOGITS, weights).exp(), probs)
    geometric = torch.tensor([[1.0, 2**0.75, 5**0.75 * 2**0.25]])
    torch.testing.assert_close(mean_logits(LOGITS, weights).exp(), geometric)


def test_logits_of_any_level_are_safe_and_a_weight_of_0_leaves_out() -> None:
    far = torch.tensor([[[1000.0, 0.0, -1000.0]], [[-1000.0, 0.0, 1000.0]]])
    found = log_mean_probs(far, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(found.exp(), torch.tensor([[0.5, 0.0, 0.5]]))
    assert found.isfinite().all()
    torch.testing.assert_close(log_mean_probs(far, torch.tensor([1.0, 0.0])), far[0].log_softmax(dim=1))
    torch.testing.assert_close(mean_logits(far, torch.tensor([1.0, 0.0])), far[0])


def test_the_mean_does_not_depend_on_the_order_and_of_one_is_that_one() -> None:
    weights = torch.tensor([0.3, 0.7])
    for mean in (log_mean_probs, mean_logits):
        torch.testing.assert_close(mean(LOGITS, weights), mean(LOGITS.flip(0), weights.flip(0)))
        torch.testing.assert_close(
            mean(LOGITS[:1], torch.ones(1)).softmax(dim=1), LOGITS[0].softmax(dim=1), rtol=0, atol=1e-7
        )


def test_weights_are_divided_by_their_sum() -> None:
    assert normalized_weights([3, 1], 2) == [0.75, 0.25]
    assert normalized_weights(None, 4) == [0.25] * 4


class Seen(Network):
    """Keeps the images it was given; logits are their channel means after its own normalization."""

    def __init__(self, mean: float) -> None:
        super().__init__(3, 3, mean=(mean,) * 3, std=(0.5,) * 3, channels_last=False)
        self.head = torch.nn.Identity()
        self.shape: torch.Size | None = None

    def _features(self, normalized: Tensor) -> Tensor:
        self.shape = normalized.shape
        return normalized.mean(dim=(2, 3))


def test_members_normalize_and_resize_for_themselves() -> None:
    members = [Seen(0.0), Seen(0.5)]
    network = MeanNetwork(members, [None, (4, 6)], [0.5, 0.5], mean_logits)
    found = network(torch.full((2, 3, 8, 8), 0.5))
    torch.testing.assert_close(found, torch.full((2, 3), 0.5 * (0.5 / 0.5) + 0.5 * 0.0))
    assert (members[0].shape, members[1].shape) == ((2, 3, 8, 8), (2, 3, 4, 6))
    network.adapt_normalization((0.9,) * 3, (0.1,) * 3)  # the data's, which is none of its business
    assert torch.equal(network(torch.full((2, 3, 8, 8), 0.5)), found)


def two_files(folder: Path) -> tuple[list[str], list[torch.nn.Module]]:
    first, second = shaken(CifarResNet(3, depth=8), 1), shaken(WideResNet(3, depth=10, widen=1), 2)
    files = [
        trained_file(folder / "a.ckpt", first, {"depth": 8}, method="tailmatch.lightning_modules.FixMatch"),
        trained_file(folder / "b.ckpt", second, {"depth": 10, "widen": 1}),
    ]
    return files, [first, second]


def test_forward_is_the_mean_over_networks_and_views(tmp_path: Path) -> None:
    files, networks = two_files(tmp_path)
    probs = torch.stack([network(IMAGES).softmax(dim=1) for network in networks])
    both = Ensemble(3, files, weights=[1, 3]).eval()
    torch.testing.assert_close(both(IMAGES).softmax(dim=1), 0.25 * probs[0] + 0.75 * probs[1])
    mirrored = torch.stack([network(IMAGES.flip(-1)).softmax(dim=1) for network in networks])
    flipping = Ensemble(3, files, flip=True).eval()
    torch.testing.assert_close(flipping(IMAGES).softmax(dim=1), torch.cat([probs, mirrored]).mean(dim=0))
    torch.testing.assert_close(flipping(IMAGES), flipping(IMAGES.flip(-1)))
    logits = Ensemble(3, files, mean_of="logits").eval()
    torch.testing.assert_close(logits(IMAGES), (networks[0](IMAGES) + networks[1](IMAGES)) / 2)
    cropped = Ensemble(3, files[:1], mean_of="logits", crops=1, crop_share=0.5).eval()
    middle = torch.nn.functional.interpolate(IMAGES[..., 2:6, 2:6], (8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(cropped(IMAGES), networks[0](middle))
    assert not any(p.requires_grad for p in both.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1]}, r"weights are \[1.0\], and there are 2 checkpoints"),
        ({"weights": [1, -1]}, r"weights\[1\] is -1; it must be at least 0"),
        ({"weights": [0, 0]}, "must not all be 0"),
        ({"weights": [1, float("nan")]}, r"weights\[1\] is nan"),
        ({"crops": 6}, r"crops is 6; it must be in \[0, 5\] \(0: the image as it is\)"),
        ({"crop_share": 0.5}, "crop_share is 0.5, and crops is 0"),
        ({"crops": 5, "crop_share": 1.5}, r"crop_share is 1.5; it must be in \(0, 1\)"),
        ({"checkpoints": []}, "needs one or more files"),
        ({"checkpoints": ["/no.ckpt"]}, "does not exist"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    files, _ = two_files(tmp_path)
    with pytest.raises(ValueError, match=message):
        Ensemble(**{"checkpoints": files, "num_classes": 3, **arguments})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", "dog", "emu"], r"only there \['emu'\], only here \['owl'\]"),
        (["dog", "cat", "owl"], "the same names in another order"),
    ],
)
def test_checkpoints_of_other_classes_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    files, _ = two_files(tmp_path)
    other = trained_file(tmp_path / "c.ckpt", CifarResNet(3, depth=8), {"depth": 8}, names=names)
    with pytest.raises(ValueError, match=rf"c\.ckpt.*{message}"):
        Ensemble(3, [*files, other])


def small_digits(**arguments: Any) -> Digits:
    return Digits(image_size=8, val_holdout=2, test_holdout=3, **arguments)


def trainer(folder: Path) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, str]:
    """A short run on digits, and its checkpoint as the command line leaves it."""
    folder = tmp_path_factory.mktemp("trained")
    made = run(Supervised, folder, at_epoch_ends(folder))
    content = torch.load(folder / "last.ckpt", weights_only=True)
    network = {"class_path": "tailmatch.lightning_modules.networks.CifarResNet", "init_args": {"depth": 8}}
    settings = {"class_path": "tailmatch.lightning_modules.Supervised", "init_args": {"network": network}}
    torch.save({**content, "config": yaml.safe_dump({"model": settings})}, folder / "last.ckpt")
    return made, str(folder / "last.ckpt")


def test_an_ensemble_of_one_tests_and_predicts_as_that_one(trained: tuple[Trainer, str], tmp_path: Path) -> None:
    made, file = trained
    data: LightningDataModule = made.datamodule  # type: ignore[attr-defined]
    alone = made.lightning_module
    one, twice = Ensemble(10, [file]), Ensemble(10, [file, file], weights=[2, 1])
    [expected] = trainer(tmp_path).test(alone, data, verbose=False)
    for ensemble in (one, twice):
        [found] = trainer(tmp_path).test(ensemble, data, verbose=False)
        assert found == pytest.approx(expected, abs=1e-6)
    predicted = trainer(tmp_path).predict(one, data)
    for mine, theirs in zip(predicted or [], trainer(tmp_path).predict(alone, data) or [], strict=True):
        torch.testing.assert_close(mine["probs"], theirs["probs"])  # type: ignore[call-overload]
    assert yaml.safe_load((tmp_path / "test_metrics.json").read_text())["checkpoint"] == [file, file]


def test_data_that_does_not_fit_is_refused(trained: tuple[Trainer, str], tmp_path: Path) -> None:
    made, file = trained
    data: LightningDataModule = made.datamodule  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="is not trained: use test, validate or predict"):
        trainer(tmp_path).fit(Ensemble(10, [file]), data)
    with pytest.raises(ValueError, match="flip is true, and a mirrored image of Digits may be of another class"):
        trainer(tmp_path).test(Ensemble(10, [file], flip=True), data)
    with pytest.raises(ValueError, match="trained on another split of the data"):
        trainer(tmp_path).test(Ensemble(10, [file]), small_digits(seed=9))
    files, _ = two_files(tmp_path)
    with pytest.raises(ValueError, match=r"only there \['cat', 'dog', 'owl'\], only here \['0', '1'"):
        trainer(tmp_path).test(Ensemble(10, files), data)
    with pytest.raises(ValueError, match="there is no data module"):
        trainer(tmp_path).test(Ensemble(10, [file]), dataloaders=[])
