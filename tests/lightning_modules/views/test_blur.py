import pytest
import torch
from torchvision.transforms.v2 import functional

from tailmatch.lightning_modules.views import GaussianBlur
from tailmatch.lightning_modules.views.blur import gaussian_blur


@pytest.mark.parametrize("radius", [1, 2, 7])
@pytest.mark.parametrize("shape", [(32, 32), (8, 30)])
def test_is_one_gray_level_off_torchvision_at_most(radius, shape, batch):
    images = torch.cat([batch[:20, :, : shape[0], : shape[1]], torch.full((1, 3, *shape), 255, dtype=torch.uint8)])
    sigma = torch.cat([torch.linspace(0.1, 2, 20, dtype=torch.float64), torch.tensor([30.0])])
    original = images.clone()

    result = gaussian_blur(images, sigma, radius)

    kernel = 2 * radius + 1
    pairs = zip(images, sigma.tolist(), strict=True)
    expected = torch.stack([functional.gaussian_blur(image, [kernel, kernel], [s, s]) for image, s in pairs])
    difference = (result.to(torch.int16) - expected.to(torch.int16)).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.15
    assert torch.equal(images, original)


def test_worked_by_hand():
    """Sigma with exp(-1 / (2 sigma^2)) = 1/2 weighs the neighbors half: (1, 2, 1) / 4, mirrored at the border."""
    image = torch.tensor([0, 40, 200, 100], dtype=torch.uint8).expand(1, 3, 5, 4)
    sigma = torch.tensor([(0.5 / torch.tensor(2.0).log().item()) ** 0.5], dtype=torch.float64)
    assert gaussian_blur(image, sigma, 1)[0, 0, 2].tolist() == [20, 70, 135, 150]


def test_constant_images_stay():
    images = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 24, 24)
    sigma = torch.linspace(0.1, 9, 256, dtype=torch.float64)
    assert torch.equal(gaussian_blur(images, sigma, 11), images)


@pytest.mark.parametrize(("side", "radius"), [(8, 1), (39, 1), (40, 2), (100, 5)])
def test_kernel_covers_a_tenth_of_the_shorter_side(side, radius):
    """A bright pixel spreads by the radius; sigma is large enough for that to show."""
    images = torch.zeros(1, 3, side, side + 40, dtype=torch.uint8)
    images[:, :, side // 2, side // 2] = 255
    columns = GaussianBlur(1, sigma=(4.0, 4.0)).augment(images)[0, 0].amax(0).nonzero().flatten()
    assert columns.tolist() == list(range(side // 2 - radius, side // 2 + radius + 1))


def test_draws():
    torch.manual_seed(0)
    chosen, sigma = GaussianBlur(0.3, (0.5, 1.5)).draw(20_000)
    assert chosen.float().mean() == pytest.approx(0.3, abs=0.017)
    quarters = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)
    torch.testing.assert_close(sigma.quantile(quarters), 0.5 + quarters, rtol=0, atol=0.02)


def test_only_the_chosen_images_change(batch):
    view = GaussianBlur(0.5, (1.0, 2.0))
    torch.manual_seed(4)
    result = view.augment(batch)
    torch.manual_seed(4)
    chosen, sigma = view.draw(len(batch))
    assert torch.equal(result[~chosen], batch[~chosen])
    assert torch.equal(result[chosen], gaussian_blur(batch, sigma, 1)[chosen])


def test_probability_of_zero_changes_nothing(batch):
    assert torch.equal(GaussianBlur(0).augment(batch), batch)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("probability", 1.5, "probability is 1.5; it must be"),
        ("sigma", (0.0, 1.0), "sigma[0] is 0.0; it must be above 0"),
        ("sigma", (2.0, 1.0), "sigma is (2.0, 1.0); its first number must not exceed the second"),
    ],
)
def test_bad_arguments(field, value, message):
    with pytest.raises(ValueError) as error:
        GaussianBlur(**{field: value})
    assert str(error.value).startswith(message)
