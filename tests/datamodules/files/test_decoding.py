"""Pixels of image files against values set by hand, and against Pillow's own resizing."""

import io
import os
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tailmatch.datamodules.files.decoding import MOST_BYTES, UnreadableImage, decode_image, file_pixels, read_image_file

RNG = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def color(data: bytes, size: int = 4) -> list[int]:
    """The one color of a plain image."""
    pixels = decode_image(data, size)
    assert pixels.shape == (3, size, size) and pixels.dtype == torch.uint8 and pixels.is_contiguous()
    assert (pixels == pixels[:, :1, :1]).all()
    return pixels[:, 0, 0].tolist()


def smooth(height: int, width: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((width, height))


def bomb() -> bytes:
    """A PNG file of some bytes whose header says that it has 50,000 x 50,000 pixels."""
    data = bytearray(encoded(Image.new("1", (1, 1))))
    data[16:24] = struct.pack(">II", 50_000, 50_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("size", [4, 3])
def test_modes_come_out_as_rgb(size: int) -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert color(encoded(Image.new("L", (4, 4), 77)), size) == [77] * 3
    assert color(encoded(palette), size) == [10, 20, 30]
    assert color(encoded(Image.new("1", (4, 4), 1)), size) == [255] * 3
    assert color(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), size) == [255, 0, 0]


def test_sixteen_bit_gray_keeps_its_high_byte() -> None:
    deep = Image.fromarray(np.full((4, 4), 0x8040, dtype=np.uint16))
    assert color(encoded(deep)) == [0x80] * 3
    assert color(encoded(deep, "TIFF")) == [0x80] * 3
    assert color(b"P5 4 4 65535\n" + np.full((4, 4), 0x8040, ">u2").tobytes()) == [0x80] * 3


def test_transparent_pixels_are_white_and_half_transparent_ones_half() -> None:
    assert color(encoded(Image.new("RGBA", (4, 4), (10, 20, 30, 0)))) == [255] * 3
    assert color(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 51)))) == [204] * 3  # 255 (1 - 51 / 255)
    assert color(encoded(Image.new("LA", (4, 4), (9, 255)))) == [9] * 3
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert color(encoded(palette, transparency=1)) == [255] * 3


@pytest.mark.parametrize(
    ("tag", "stored"),  # how an image lies in the file for it to be upright after the tag's turn (EXIF 2.3, 4.6.4)
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.swapaxes(0, 1)),
        (6, lambda x: np.rot90(x)),
        (7, lambda x: np.rot90(x, 2).swapaxes(0, 1)),
        (8, lambda x: np.rot90(x, -1)),
    ],
)
def test_images_are_turned_as_their_tag_says(tag: int, stored: Any) -> None:
    upright = RNG.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = tag
    data = encoded(Image.fromarray(np.ascontiguousarray(stored(upright))), exif=exif)
    assert decode_image(data, 5).permute(1, 2, 0).numpy().tolist() == upright.tolist()


def test_a_jpeg_is_turned_too() -> None:
    stored = np.zeros((64, 64, 3), dtype=np.uint8)
    stored[:, :32] = 255  # the left half, which a quarter turn clockwise (tag 6) brings to the top
    exif = Image.Exif()
    exif[0x0112] = 6
    for size in (64, 8):  # as it is, and by the draft mode
        pixels = decode_image(encoded(Image.fromarray(stored), "JPEG", quality=95, exif=exif), size)
        assert pixels[:, : size // 2 - 2].min() > 240 and pixels[:, size // 2 + 2 :].max() < 15


@pytest.mark.parametrize(("height", "width", "size"), [(40, 60, 20), (61, 40, 32), (20, 24, 32)])
def test_the_middle_square_is_resized_as_pillow_does(height: int, width: int, size: int) -> None:
    image = smooth(height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    difference = decode_image(encoded(image), size).permute(1, 2, 0).int() - torch.from_numpy(np.array(square)).int()
    assert difference.abs().max() <= 1


def test_a_large_photograph_is_decoded_at_a_reduced_size_to_nearly_the_same_pixels() -> None:
    data = encoded(smooth(1000, 1400), "JPEG", quality=95)
    exact = ImageOps.fit(Image.open(io.BytesIO(data)), (60, 60), Image.Resampling.BICUBIC)
    difference = decode_image(data, 60).permute(1, 2, 0).int() - torch.from_numpy(np.array(exact)).int()
    assert difference.abs().float().mean() < 1.5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        encoded(smooth(40, 40), "JPEG")[:-200],
        encoded(smooth(40, 40))[:-200],
        encoded(Image.fromarray(np.full((4, 4), 3.5, dtype=np.float32)), "TIFF"),
        bomb(),
    ],
    ids=["empty", "text", "cut-off jpeg", "cut-off png", "float", "bomb"],
)
def test_what_is_no_whole_image_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableImage):
        decode_image(data, 8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1)])
def test_images_of_any_shape(shape: tuple[int, int]) -> None:
    image = Image.new("RGB", shape, (10, 20, 30))
    assert color(encoded(image), 4) == [10, 20, 30]
    assert file_pixels(encoded(image)).shape == (3, *shape[::-1])


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (4, 4), (shade,) * 3) for shade in (10, 200)]
    for kind in ("GIF", "WEBP", "TIFF"):
        data = encoded(
            frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
        )
        assert color(data) == [10] * 3


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)  # which takes no space on the disk
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
    for name, message in (
        ("pipe.png", "a pipe or a device, not a file"),
        ("device.png", "a pipe or a device, not a file"),
        ("folder.png", "Is a directory"),
        ("loop.png", "Too many levels of symbolic links"),
        ("huge.png", "1.1 GB, more than an image file has"),
        ("socket.png", "No such device or address"),
        ("none.png", "there is no such file"),
        ("x" * 300, "File name too long"),
        ("a\0b.png", "no path of a file: embedded null byte"),
    ):
        with pytest.raises(UnreadableImage, match=message):
            read_image_file(tmp_path / name)


def test_flat_images_stay_flat() -> None:
    pixels: Tensor = decode_image(encoded(Image.new("RGB", (50, 30), (1, 128, 254))), 7)
    assert pixels.flatten(1).unique(dim=1).tolist() == [[1], [128], [254]]


def test_no_other_program_is_started_for_a_file() -> None:
    """Pillow decodes PostScript with Ghostscript, whatever the file's name."""
    drawing = io.BytesIO()
    Image.new("RGB", (8, 8)).save(drawing, "EPS")
    assert Image.open(io.BytesIO(drawing.getvalue())).format == "EPS"
    with pytest.raises(UnreadableImage):
        decode_image(drawing.getvalue(), 8)
