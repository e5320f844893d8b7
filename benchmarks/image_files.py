"""Make image files for benchmarks that are given none."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(folder: Path, count: int, size: int = 160) -> Path:
    """Write smooth random JPEG files of two classes, half as many for training as for the test."""
    random = np.random.default_rng(0)
    for part, number in (("train", count // 2), ("test", count)):
        for k in range(number):
            noise = Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8))
            file = folder / part / f"class {k % 2}" / f"{k:05}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise.resize((size, size), Image.Resampling.BICUBIC).save(file, quality=90)
    return folder
