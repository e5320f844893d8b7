import numpy as np
import pytest
import torch
from PIL import Image

from tailmatch.lightning_modules.views import ops

FACTORS = [0.0, 0.05, 0.3, 0.5, 0.777, 0.95, 1.0, 1.7]
PARAMETERS = {
    "identity": [0],
    "autocontrast": [0],
    "equalize": [0],
    "brightness": FACTORS,
    "color": FACTORS,
    "contrast": FACTORS,
    "sharpness": FACTORS,
    "posterize": [1, 4, 5, 6, 7, 8],
    "solarize": [0, 0.5, 1, 100.25, 128, 255, 255.5, 256],
    "rotate": [-30, -29.5, -10, -0.01, 0, 0.3, 7.77, 15, 30],
    "shear_x": [-0.3, -0.123, -1e-3, 0, 1e-3, 0.05, 0.25, 0.3],
    "shear_y": [-0.3, -0.123, -1e-3, 0, 1e-3, 0.05, 0.25, 0.3],
    "translate_x": [-1, -0.3, -0.123, -0.01, 0, 0.01, 0.1, 0.21, 0.3, 1],
    "translate_y": [-1, -0.3, -0.123, -0.01, 0, 0.01, 0.1, 0.21, 0.3, 1],
}


def apply(name, images, parameters):
    function = getattr(ops, name)
    return function(images) if len(PARAMETERS[name]) == 1 else function(images, torch.tensor(parameters))


@pytest.mark.parametrize("name", PARAMETERS)
def test_operation_equals_pillow(name, photos, pillow):
    pairs = [(photo, parameter) for photo in photos for parameter in PARAMETERS[name]]
    images = torch.from_numpy(np.stack([np.asarray(photo) for photo, _ in pairs])).permute(0, 3, 1, 2)
    original = images.clone()

    result = apply(name, images, [parameter for _, parameter in pairs])

    expected = np.stack([np.asarray(pillow[name](photo, parameter)) for photo, parameter in pairs])
    np.testing.assert_array_equal(result.permute(0, 2, 3, 1).numpy(), expected)
    assert result.dtype == torch.uint8
    assert torch.equal(images, original)


@pytest.mark.parametrize("name", PARAMETERS)
def test_samples_are_independent(name, batch):
    parameters = torch.linspace(PARAMETERS[name][0], PARAMETERS[name][-1], len(batch)).tolist()
    together = apply(name, batch, parameters)
    for i in (0, 17, 63):
        assert torch.equal(together[i], apply(name, batch[i : i + 1], parameters[i : i + 1])[0])


def test_equalize_clips_as_pillow_does(pillow):
    """A step of one grey level for 509 pixels would lead beyond 255."""
    ramp = np.repeat(np.arange(0, 256, dtype=np.uint8), 2)[:510].reshape(1, 510)
    image = np.stack([ramp] * 3, -1)
    result = ops.equalize(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    np.testing.assert_array_equal(result, np.asarray(pillow["equalize"](Image.fromarray(image), 0)))
