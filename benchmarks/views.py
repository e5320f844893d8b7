"""Time a view of a batch against the same pipeline on single images.

    python -m benchmarks.views
    python -m benchmarks.views --images path/to/folder --size 32 --batch-size 448 --device cuda
    python -m benchmarks.views --view simclr --size 224 --batch-size 64

The strong view is flip, shift, two operations of RandAugment and Cutout, against Pillow; the SimCLR view is crop, flip,
color jitter, gray and blur, against torchvision on Pillow images or on `uint8` tensors. All go from `uint8` images to
float32 tensors in [0, 1], in one process. A repetition is one batch; the pipelines alternate, and medians are printed.
Without `--images` the batch is smooth random noise. Single images are already in memory and are processed by one core,
as by one loader worker.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from tailmatch.lightning_modules.views import SimCLRView, StrongView, View


def _affine(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients)


PILLOW_OPERATIONS: list[Callable[[Image.Image], Image.Image]] = [
    lambda image: image,
    ImageOps.autocontrast,
    lambda image: ImageEnhance.Brightness(image).enhance(random.uniform(0.05, 0.95)),
    lambda image: ImageEnhance.Color(image).enhance(random.uniform(0.05, 0.95)),
    lambda image: ImageEnhance.Contrast(image).enhance(random.uniform(0.05, 0.95)),
    ImageOps.equalize,
    lambda image: ImageOps.posterize(image, random.randint(4, 8)),
    lambda image: ImageEnhance.Sharpness(image).enhance(random.uniform(0.05, 0.95)),
    lambda image: ImageOps.solarize(image, random.randint(0, 256)),
    lambda image: image.rotate(random.uniform(-30, 30)),
    lambda image: _affine(image, 1, random.uniform(-0.3, 0.3), 0, 0, 1, 0),
    lambda image: _affine(image, 1, 0, 0, random.uniform(-0.3, 0.3), 1, 0),
    lambda image: _affine(image, 1, 0, random.uniform(-0.3, 0.3) * image.width, 0, 1, 0),
    lambda image: _affine(image, 1, 0, 0, 0, 1, random.uniform(-0.3, 0.3) * image.height),
]


def pillow_strong_view(image: Image.Image) -> Tensor:
    """Make the strong view of one image: `float32 [3, H, W]` in [0, 1]."""
    width, height = image.size
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    y, x = height // 8, width // 8
    padded = np.pad(np.asarray(image), ((y, y), (x, x), (0, 0)), mode="reflect")
    top, left = random.randint(0, 2 * y), random.randint(0, 2 * x)
    image = Image.fromarray(padded[top : top + height, left : left + width])
    for operation in random.choices(PILLOW_OPERATIONS, k=2):
        image = operation(image)
    pixels = np.array(image)
    half = min(height, width) // 4
    row, column = random.randrange(height), random.randrange(width)
    pixels[max(0, row - half) : row + half, max(0, column - half) : column + half] = 127
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255)


def pillow_weak_view(image: Image.Image) -> Tensor:
    """Make the weak view of one image: `float32 [3, H, W]` in [0, 1]."""
    width, height = image.size
    if np.random.rand() < 0.5:
        image = ImageOps.mirror(image)
    y, x = height // 8, width // 8
    padded = np.pad(np.asarray(image), ((y, y), (x, x), (0, 0)), mode="reflect")
    top, left = np.random.randint(0, 2 * y + 1), np.random.randint(0, 2 * x + 1)
    pixels = np.ascontiguousarray(padded[top : top + height, left : left + width])
    return torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32).div_(255)


def torchvision_simclr_view(size: int, scale: tuple[float, float] = (0.08, 1.0), jitter: float = 1.0) -> v2.Transform:
    """Return SimCLR's view of one image, Pillow or `uint8` tensor: `float32 [3, H, W]` in [0, 1]."""
    colors = 0.8 * jitter
    return v2.Compose(
        [
            v2.RandomResizedCrop(size, scale),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(colors, colors, colors, 0.2 * jitter)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(2 * max(1, size // 20) + 1, (0.1, 2.0))], p=0.5),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )


Maker = Callable[[Image.Image], Tensor]
"""Makes a view of one image."""


class PillowViews(Dataset[tuple[Tensor, ...]]):
    """Views of single images of noise, and a label.

    Args:
        count: Number of images.
        makers: Makers of the views of each image.
        size: Side of the images in pixels.
    """

    def __init__(self, count: int, makers: Sequence[Maker], size: int = 32) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), dtype=np.uint8)
        self.images = [Image.fromarray(pixels) for pixels in noise]
        self.count, self.makers = count, makers

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        image = self.images[index % len(self.images)]
        return (*(make(image) for make in self.makers), torch.tensor(index % 10))


def load(folder: Path | None, batch_size: int, size: int) -> list[Image.Image]:
    """Read the first images of a folder and its subfolders, resized and repeated as needed, or make noise."""
    if folder is None:
        noise = np.random.default_rng(0).integers(0, 256, (batch_size, 5, 5, 3), dtype=np.uint8)
        return [Image.fromarray(patch).resize((size, size), Image.Resampling.BICUBIC) for patch in noise]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise ValueError(f"--images must be a folder that holds .jpg or .png files, got {folder}")
    chosen = [paths[i * len(paths) // batch_size] for i in range(batch_size)]
    return [Image.open(path).convert("RGB").resize((size, size)) for path in chosen]


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Time one call, until the device has finished."""
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Parse the options and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--view", choices=("strong", "simclr"), default="strong")
    parser.add_argument("--images", type=Path, help="folder of images; default: noise")
    parser.add_argument("--batch-size", type=int, default=448)
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="number of torch threads")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    pictures = load(options.images, options.batch_size, options.size)
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    batch = pixels.permute(0, 3, 1, 2).contiguous().to(options.device)
    by_image: dict[str, Callable[[], object]]
    if options.view == "strong":
        view: View = StrongView()
        by_image = {"Pillow": lambda: torch.stack([pillow_strong_view(picture) for picture in pictures])}
    else:
        view, single, tensors = SimCLRView(), torchvision_simclr_view(options.size), list(batch.cpu())
        by_image = {
            "torchvision on Pillow": lambda: torch.stack([single(picture) for picture in pictures]),
            "torchvision on tensors": lambda: torch.stack([single(tensor) for tensor in tensors]),
        }
    report(view, batch, by_image, options.repeat)


def report(view: View, batch: Tensor, by_image: dict[str, Callable[[], object]], repeat: int) -> None:
    """Time the view and the pipelines on single images, and print images per second."""
    functions = {f"{type(view).__name__}, {batch.device}": lambda: view(batch), **by_image}
    for function in functions.values():
        seconds(function, batch.device)  # warm up
    times = [[seconds(function, batch.device) for function in functions.values()] for _ in range(repeat)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    for name, median in zip(functions, medians, strict=True):
        speed = f"{1e3 * median:9.1f} ms a batch{len(batch) / median:12,.0f} images/s"
        print(f"{name:24s}{speed}{median / medians[0]:9.1f} times the view's time")


if __name__ == "__main__":
    main()
