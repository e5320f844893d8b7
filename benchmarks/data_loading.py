"""Measure images per second from files to batches: first run, cached run, on the fly, and plain torchvision.

    python -m benchmarks.data_loading path/to/folder --size 32
    python -m benchmarks.data_loading path/to/folder --table images.csv --target articleType --size 128 --workers 2
    python -m benchmarks.data_loading path/to/folder --decoders --size 128
    python -m benchmarks.data_loading --made 2000 --size 96
    python -m benchmarks.data_loading --rows 1000000

The folder has one sub-folder per class in `train/`, or a table lists its images, or `--made` makes them, of 160 pixels.
An epoch loads every training image once, in a new random order, as `uint8` batches, and does nothing else. The first
run decodes everything and fills the cache. The torchvision run uses `ImageFolder`, resize and center crop to `uint8`
tensors, and a shuffling `DataLoader` with as many workers; files of a table are read in the same way. Cached images are
fetched by the main process, the fastest way. `--decoders` times decoders on one core, on the folder's JPEG files and on
the same images as photographs of three megapixels. `--rows` reads an artificial table of that many rows and prints the
seconds and the memory that it takes.
"""

import argparse
import io
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from benchmarks.image_files import write_images
from tailmatch.datamodules import ImageFolder, ImageTable, LabeledFraction
from tailmatch.datamodules.files.decoding import decode_image

DECODED = 500
"""Number of images that `--decoders` times; for photographs it is a tenth of it."""


class PlainFiles(Dataset[tuple[Tensor, int]]):
    """torchvision's `ImageFolder` on a list of files."""

    def __init__(self, files: Sequence[Path], targets: Sequence[int], size: int) -> None:
        self.files, self.targets = files, targets
        self.transform = v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(default_loader(str(self.files[index]))), self.targets[index]


def seconds(batches: Iterable[Any]) -> float:
    """Return the time of an epoch."""
    begun = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - begun


def opened(options: argparse.Namespace, cache: str, budget: float, workers: int) -> ImageFolder | ImageTable:
    """Open the data set with all training images labeled."""
    arguments: dict[str, Any] = {
        "image_size": options.size, "cache_dir": cache, "cache_budget_gb": budget, "num_workers": workers,
        "labeled_batch_size": options.batch_size, "class_counts": LabeledFraction(1.0), "val_holdout": 0,
        "test_holdout": 0, "include_labeled_in_unlabeled": True, "unlabeled_ratio": 1,
    }  # fmt: skip
    if options.table is None:
        return ImageFolder(options.folder, **arguments)
    table = str(Path(options.folder, options.table))
    return ImageTable(table, options.folder, target_column=options.target, **arguments)


def set_up(options: argparse.Namespace, cache: str, budget: float, workers: int) -> ImageFolder | ImageTable:
    """Open the data set, and read what it needs before the first batch, without a report of the progress."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are no validation images
        data = opened(options, cache, budget, workers)
        data.setup("fit")
    return data


def loading(options: argparse.Namespace, cache: str) -> None:
    """Print a line for each way of loading."""
    begun = time.perf_counter()
    data = set_up(options, cache, 1e9, 0)
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    data = set_up(options, cache, 1e9, 0)
    again = time.perf_counter() - begun
    lazy = set_up(options, cache, 0, options.workers)
    images = data.labeled.images
    count = len(data.labeled)
    files = [data.root / key for key in images.keys or ()]
    plain_files = PlainFiles(files, images.targets.tolist(), options.size)
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    plain = DataLoader(plain_files, batch_size=options.batch_size, shuffle=True, **workers)
    for module in (data, lazy):
        module.steps_per_epoch = -(-count // options.batch_size)
    cached_loader, lazy_loader = (module.train_dataloader()["labeled"] for module in (data, lazy))
    runs: dict[str, tuple[Any, list[float]]] = {
        "cached": (cached_loader, []), "on the fly": (lazy_loader, []), "torchvision": (plain, []),
    }  # fmt: skip
    for loader, _ in runs.values():
        seconds(loader)  # start the workers, read the files once
    for _ in range(options.repeats):
        for loader, times in runs.values():
            times.append(seconds(loader))
    total = count + sum(len(rows) for rows in (data.val, data.test) if rows is not None)
    print(f"{count:,} training images of {total:,}, size {options.size}, {options.workers} workers")
    print(f"{'first run: decode and cache all':34}{total / first:12,.0f} images/s {first:10.2f} s")
    print(f"{'second run: until the first batch':34}{'':12}          {again:10.2f} s")
    slowest = statistics.median(runs["torchvision"][1])
    for name, (_, times) in runs.items():
        median = statistics.median(times)
        print(f"{'an epoch, ' + name:34}{count / median:12,.0f} images/s {median:10.3f} s {slowest / median:8.1f} x")


def decoders(options: argparse.Namespace) -> None:
    """Print images per second of each decoder on one core."""
    torch.set_num_threads(1)
    files = sorted(Path(options.folder).rglob("*.jpg"))[:DECODED]
    small = [file.read_bytes() for file in files]
    photographs = []
    for data in small[: DECODED // 10]:
        file = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").resize((2000, 1500)).save(file, "JPEG", quality=90)
        photographs.append(file.getvalue())
    fit = v2.Compose([v2.Resize(options.size, v2.InterpolationMode.BICUBIC), v2.CenterCrop(options.size)])

    def torchvision_jpeg(data: bytes) -> Tensor:
        jpeg = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return fit(decode_jpeg(jpeg, ImageReadMode.RGB, apply_exif_orientation=True))

    def whole_pillow(data: bytes) -> Tensor:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        return v2.functional.pil_to_tensor(fit(image))

    ways: dict[str, Callable[[bytes], Tensor]] = {
        "Pillow's draft mode, torch's resize (ours)": lambda data: decode_image(data, options.size),
        "Pillow": whole_pillow,
        "torchvision.io.decode_jpeg": torchvision_jpeg,
    }
    for title, images in (("files as they are", small), ("3 megapixels", photographs)):
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.repeats):  # the decoders alternate
            for name, decode in ways.items():
                times[name].append(seconds(map(decode, images)))
        for name, taken in times.items():
            print(f"{title:20}{name:45}{len(images) / statistics.median(taken):10,.0f} images/s")


def index(rows: int) -> None:
    """Print the time and memory that reading a table takes."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "list.csv")
        with table.open("w") as file:
            file.write("image,target,split\n")
            for row in range(rows):
                split = "val" if row % 10 == 0 else "train"
                file.write(f"images/{row % 1000:04}/{row:08}.jpg,class {row % 5000},{split}\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.perf_counter()
        data = ImageTable(str(table))
        lists = data.list_files()
        taken = time.perf_counter() - begun
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{rows:,} rows, {data.num_classes:,} classes: {taken:.2f} s, {memory:,.0f} MB at most", *lists)


def main() -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--table", help="name of a table in the folder")
    parser.add_argument("--target", default="target", help="column of the table with the classes")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--decoders", action="store_true")
    parser.add_argument("--made", type=int, help="make this number of training images, in place of a folder")
    parser.add_argument("--rows", type=int, help="only read an artificial table of this many rows")
    options = parser.parse_args()
    if options.rows:
        index(options.rows)
        return
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as cache:
        if options.made:
            options.folder = str(write_images(Path(made), 2 * options.made))
        if options.folder is None:
            parser.error("name a folder, --made or --rows")
        if options.decoders:
            decoders(options)
        else:
            loading(options, cache)


if __name__ == "__main__":
    main()
