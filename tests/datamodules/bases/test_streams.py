"""Training images on the device: the same batches as from the host."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.bases.streams import OnDevice
from tailmatch.datamodules.files.file_pixels import FilePixels, MappedPixels
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.splitting.label_noise import SymmetricNoise
from tailmatch.lightning_modules import FixMatch
from tests import pretended_gpu
from tests.contract import TaggedDigits, at_epoch_ends, prepare, saved
from tests.pretended_gpu import GPU, GPUTensor, PretendedGPU

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")

STREAMS = ("labeled", "balanced", "unlabeled", "pool")


def trainer(device: torch.device) -> Any:
    return SimpleNamespace(
        lightning_module=SimpleNamespace(streams=STREAMS), global_rank=0, world_size=1, training=True,
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(ready=0)))),
        strategy=SimpleNamespace(root_device=device),
    )  # fmt: skip


def batches(data: LabeledUnlabeledDataModule, device: torch.device, on_device: OnDevice) -> list[dict[str, Any]]:
    """Load the first two batches as a trainer does, and tell by `loaded` what the loaders gave."""
    data.on_device = on_device
    data.trainer = trainer(device)
    data.setup("fit")
    loaders = data.train_dataloader()
    found = []
    for loaded in zip(*loaders.values(), strict=True):
        batch = dict(zip(loaders, loaded, strict=True))
        moved = data.transfer_batch_to_device(batch, device, 0)
        names = {name for stream in batch.values() for name in stream}
        found.append({"loaded": names} | {name: _on_host(stream) for name, stream in moved.items()})
    return found


def _on_host(stream: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.numbers if isinstance(tensor, GPUTensor) else tensor for name, tensor in stream.items()}


def digits() -> Digits:
    return TaggedDigits(
        class_counts=ListedCounts([4] * 10, [6] * 10), label_noise=SymmetricNoise(0.5), labeled_batch_size=6,
        unlabeled_ratio=2, steps_per_epoch=2,
    )  # fmt: skip


@pytest.mark.parametrize("on_device", ["auto", True])
def test_batches_on_the_gpu_are_those_of_the_host(on_device: OnDevice) -> None:
    host = batches(digits(), torch.device("cpu"), on_device)
    with PretendedGPU():
        there = batches(digits(), GPU, on_device)
    for ours, theirs in zip(there, host, strict=True):
        assert ours["loaded"] == {"index"} and theirs["loaded"] == {"image", "index", "target", "categories"}
        for name in STREAMS:
            assert ours[name].keys() == theirs[name].keys()
            assert all(torch.equal(tensor, theirs[name][key]) for key, tensor in ours[name].items())


def test_images_that_do_not_fit_and_those_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendedGPU():
        assert "image" in batches(digits(), GPU, False)[0]["loaded"]
        monkeypatch.setattr(pretended_gpu, "MEMORY", 10 * 3 * 8 * 8 * 1797 - 10)
        assert "image" in batches(digits(), GPU, "auto")[0]["loaded"]
        assert "image" not in batches(digits(), GPU, True)[0]["loaded"]
        monkeypatch.setattr(pretended_gpu, "MEMORY", 10 * 3 * 8 * 8 * 1797)
        assert "image" not in batches(digits(), GPU, "auto")[0]["loaded"]


class OfFiles(Digits):
    """Digits whose pixels are those of files."""

    def __init__(self, pixels: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pixels = pixels

    def load(self) -> Sources:
        return Sources(Images(self.pixels, super().load().train.targets))


def test_images_of_a_cache_lie_on_the_gpu_and_those_that_are_decoded_do_not(tmp_path: Path) -> None:
    pixels = digits().load().train.pixels
    assert isinstance(pixels, Tensor)
    (tmp_path / "cache").write_bytes(pixels.numpy().tobytes())
    settings: dict[str, Any] = {"labeled_batch_size": 6, "unlabeled_ratio": 2, "steps_per_epoch": 2}
    with PretendedGPU():
        cached = OfFiles(MappedPixels(tmp_path / "cache", len(pixels), 8), **settings)
        [first, _] = batches(cached, GPU, "auto")
        assert first["loaded"] == {"index"}
        rows = cached.labeled.rows[first["labeled"]["index"]]
        assert torch.equal(first["labeled"]["image"], pixels[rows])
        decoded = OfFiles(FilePixels(tmp_path, [f"{n}.png" for n in range(len(pixels))], 8), **settings)
        decoded.trainer = trainer(GPU)
        decoded.setup("fit")
        assert not decoded._there and decoded.train_dataloader() and not decoded._there
        decoded.on_device = True
        with pytest.raises(SettingsError, match="decoded for each batch cannot lie on a GPU: raise cache_budget_gb"):
            decoded.train_dataloader()


def test_a_training_gives_its_images_back_and_is_the_same_with_images_on_the_host(tmp_path: Path) -> None:
    ends = []
    for on_device in (True, False):
        with PretendedGPU() as gpu:
            folder = tmp_path / str(on_device)
            place: dict[str, Any] = {"accelerator": "auto", "strategy": gpu.strategy()}
            made, model, data = prepare(FixMatch, folder, at_epoch_ends(folder), **place)
            data.on_device = on_device
            made.fit(model, data)
            assert not data._there
            ends.append(saved(folder))
    ours, theirs = ends
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(tensor, theirs["state_dict"][name]) for name, tensor in ours["state_dict"].items())
