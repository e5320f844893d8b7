import pytest
import torch
from jsonargparse import auto_cli

from tailmatch.lightning_modules.views import ColorJitter, GaussianBlur, RandomGray, RandomResizedCrop, SimCLRView, View


def test_is_crop_then_jitter_then_gray_then_blur(batch):
    """MoCo v2's parameters, as its ``main_moco.py`` has them."""
    torch.manual_seed(2)
    result = SimCLRView(size=24, scale=(0.2, 1.0), jitter=0.5)(batch)
    torch.manual_seed(2)
    expected = batch
    for view in (
        RandomResizedCrop(24, scale=(0.2, 1.0)),
        ColorJitter(0.4, 0.4, 0.4, 0.1, probability=0.8),
        RandomGray(0.2),
        GaussianBlur(0.5, sigma=(0.1, 2.0)),
    ):
        expected = view.augment(expected)
    assert torch.equal(result, expected / 255)


def test_defaults_are_those_of_the_paper():
    view = SimCLRView()
    ranges = [(round(low, 9), round(high, 9)) for _, low, high in view.jitter.ranges]
    assert ranges == [(0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2)]
    assert (view.crop.scale, view.crop.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))
    assert (view.jitter.probability, view.gray.probability, view.blur.probability) == (0.8, 0.2, 0.5)
    assert view.blur.sigma == (0.1, 2.0)


def test_crop_and_flip_alone(batch):
    torch.manual_seed(0)
    result = SimCLRView(size=28, jitter=0, gray=0, blur=0)(batch)
    torch.manual_seed(0)
    assert torch.equal(result, RandomResizedCrop(28)(batch))


def test_passes_on_what_the_data_say_of_mirroring():
    view = SimCLRView()
    view.adapt(horizontal_flip=False)
    assert not view.crop.horizontal_flip
    view = SimCLRView(flip=True)
    view.adapt(horizontal_flip=False)
    assert view.crop.horizontal_flip


def test_never_mirrors_against_the_data():
    """Of an image that grows brighter to the right, no crop grows brighter to the left."""
    ramp = torch.arange(0, 256, 8, dtype=torch.uint8).expand(200, 3, 32, 32)
    view = SimCLRView(jitter=0, gray=0)
    view.adapt(horizontal_flip=False)
    assert (view(ramp).diff(dim=3) >= 0).all()


@pytest.mark.parametrize("size", [0, 1])
def test_small_batches(size, batch):
    assert SimCLRView(16)(batch[:size]).shape == (size, 3, 16, 16)


def build(view: View) -> View:
    return view


def test_from_a_config():
    arguments = ["--view=tailmatch.lightning_modules.views.SimCLRView", "--view.size=24", "--view.scale=[0.2, 1.0]"]
    view = auto_cli(build, args=[*arguments, "--view.jitter=0.5", "--view.flip=false"], as_positional=False)
    assert isinstance(view, SimCLRView)
    assert (view.crop.size, view.crop.scale, view.crop.flip) == (24, (0.2, 1.0), False)


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", -1), ("scale", (0.5, 0.1)), ("jitter", 2.6), ("jitter", -0.5), ("gray", 1.2), ("blur", -0.2)],
)
def test_bad_arguments(field, value):
    with pytest.raises(ValueError) as error:
        SimCLRView(**{field: value})
    assert str(error.value).startswith(f"{field} is {value}; it")
