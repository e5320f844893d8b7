from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images

SIZES = [(32, 32), (33, 47), (64, 20), (2, 3), (96, 96)]  # height, width


def _affine(*coefficients: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients)


@pytest.fixture(scope="session")
def pillow() -> dict[str, Callable[[Image.Image, float], Image.Image]]:
    return {
        "identity": lambda image, _: image,
        "autocontrast": lambda image, _: ImageOps.autocontrast(image),
        "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
        "equalize": lambda image, _: ImageOps.equalize(image),
        "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
        "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
        "solarize": lambda image, threshold: ImageOps.solarize(image, threshold),
        "rotate": lambda image, degrees: image.rotate(degrees),
        "shear_x": lambda image, shear: _affine(1, shear, 0, 0, 1, 0)(image),
        "shear_y": lambda image, shear: _affine(1, 0, 0, shear, 1, 0)(image),
        "translate_x": lambda image, shift: _affine(1, 0, shift * image.width, 0, 1, 0)(image),
        "translate_y": lambda image, shift: _affine(1, 0, 0, 0, 1, shift * image.height)(image),
    }


@pytest.fixture(scope="session", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def photos(request: pytest.FixtureRequest) -> list[Image.Image]:
    """Crops and resizes of two photographs, one of low contrast, a gradient, and constant images."""
    height, width = request.param
    images = []
    for photo in load_sample_images().images:
        picture = Image.fromarray(photo)
        images.append(picture.resize((width, height)))
        images.append(picture.crop((200, 100, 200 + width, 100 + height)))
    images.append(images[1].point(lambda value: 100 + value // 8))
    ramp = np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)
    images.append(Image.fromarray(np.stack([ramp, ramp.max() - ramp, ramp // 2], -1)))
    images += [Image.new("RGB", (width, height), color) for color in ((0,) * 3, (255,) * 3, (7, 130, 201))]
    return images


@pytest.fixture(scope="session")
def batch() -> torch.Tensor:
    """Uint8 ``[64, 3, 32, 32]``: crops of two photographs."""
    china, flower = load_sample_images().images
    crops = [p[y : y + 32, x : x + 32] for p in (china, flower) for y in range(0, 256, 32) for x in (9, 99, 300, 555)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()
