import pytest
import torch
from jsonargparse import auto_cli

from tailmatch.lightning_modules.views import (
    Cutout,
    RandAugment,
    RandomResizedCrop,
    SimCLRView,
    StrongView,
    View,
    WeakView,
)
from tests.pretended_gpu import GPU, PretendedGPU

VIEWS = [WeakView, RandAugment, Cutout, StrongView, RandomResizedCrop, SimCLRView]


@pytest.mark.parametrize("view", VIEWS)
def test_output_is_float_in_unit_range_on_the_grid_of_255(view, batch):
    original = batch.clone()
    result = view()(batch)
    assert result.dtype == torch.float32 and result.shape == batch.shape
    assert result.min() >= 0 and result.max() <= 1
    assert torch.equal((result * 255).round() / 255, result)
    assert torch.equal(batch, original)


@pytest.mark.parametrize("view", VIEWS)
def test_seed_decides(view, batch):
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        results.append(view()(batch))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("view", VIEWS)
def test_samples_get_their_own_parameters(view, batch):
    result = view()(batch[:1].expand(64, -1, -1, -1))
    assert len(result.flatten(1).unique(dim=0)) > 32


@pytest.mark.parametrize("view", VIEWS)
def test_a_sample_does_not_see_the_others(view, batch):
    changed = batch.clone()
    changed[1:] = 255 - changed[1:]
    results = []
    for images in (batch, changed):
        torch.manual_seed(1)
        results.append(view()(images))
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.equal(results[0][1], results[1][1])


def test_is_weak_then_randaugment_then_cutout(batch):
    torch.manual_seed(2)
    result = StrongView(num_ops=3, cutout=0.25)(batch)
    torch.manual_seed(2)
    expected = batch
    for view in (WeakView(), RandAugment(3), Cutout(0.25)):
        expected = view.augment(expected)
    assert torch.equal(result, expected / 255)


def test_adapts_its_weak_view():
    view = StrongView()
    view.adapt(horizontal_flip=False)
    assert not view.weak.horizontal_flip
    view = StrongView(weak=WeakView(flip=True))
    view.adapt(horizontal_flip=False)
    assert view.weak.horizontal_flip


@pytest.mark.parametrize("view", VIEWS)
def test_a_gpu_makes_the_same_views_and_the_host_never_waits(view):
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(1)
    expected = view()(images)
    with PretendedGPU() as gpu:
        there = images.to(GPU)
        gpu.waits.clear()
        torch.manual_seed(1)
        result = view()(there)
        assert result.device == GPU and gpu.waits == []
        assert torch.equal(result.cpu(), expected)


def build(view: View) -> View:
    return view


def test_from_a_config():
    package = "tailmatch.lightning_modules.views"
    arguments = [f"--view={package}.StrongView", "--view.cutout=0", f"--view.weak={package}.WeakView"]
    view = auto_cli(build, args=[*arguments, "--view.weak.flip=false"], as_positional=False)
    assert isinstance(view, StrongView)
    assert view.cutout.fraction == 0 and view.weak.flip is False and view.randaugment.num_ops == 2


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8).byte(), torch.zeros(3, 8, 8).byte()]
)
def test_bad_images(images):
    with pytest.raises(ValueError, match="images are .*; they must be torch.uint8"):
        StrongView()(images)
