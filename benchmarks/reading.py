"""Measure what a billion images would cost to list and to decode, on one thread, in CPU time.

    OMP_NUM_THREADS=1 python -m benchmarks.reading FOLDER [--size 32] [--enlarge 500 500] [--images 500]

The images of the folder are decoded by the code of trainings and of `tailmatch label`, to squares of `--size` pixels.
`--enlarge W H` first resizes them and saves them anew as JPEG of quality 90, for images of a camera's size.
"""

import argparse
import io
import time
import tracemalloc
from pathlib import Path

import torch
from PIL import Image

from tailmatch.datamodules.files.decoding import decode_image
from tailmatch.datamodules.files.listing import image_files


def listing(folder: Path) -> tuple[list[str], float, float]:
    """List a folder: its files, and for each the CPU time in seconds and the memory in bytes."""
    start = time.process_time()
    image_files(folder, "")
    spent = time.process_time() - start
    tracemalloc.start()
    keys = image_files(folder, "")
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return keys, spent / len(keys), held / len(keys)


def enlarged(content: bytes, width: int, height: int) -> bytes:
    """Resize an image and encode it as JPEG."""
    file = io.BytesIO()
    Image.open(io.BytesIO(content)).convert("RGB").resize((width, height)).save(file, "JPEG", quality=90)
    return file.getvalue()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--enlarge", type=int, nargs=2, metavar=("W", "H"))
    parser.add_argument("--images", type=int, default=500)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keys, seconds, held = listing(args.folder)
    print(f"listing {len(keys):,} files: {1e6 * seconds:.1f} CPU microseconds and {held:.0f} bytes a file")
    contents = [(args.folder / key).read_bytes() for key in keys[:: max(1, len(keys) // args.images)]]
    if args.enlarge:
        contents = [enlarged(content, *args.enlarge) for content in contents]
    for content in contents[:20]:
        decode_image(content, args.size)
    start = time.process_time()
    for content in contents:
        decode_image(content, args.size)
    spent = time.process_time() - start
    mean = sum(map(len, contents)) / len(contents)
    print(f"decoding {len(contents):,} of {mean:,.0f} bytes: {1e3 * spent / len(contents):.2f} CPU ms an image")


if __name__ == "__main__":
    main()
