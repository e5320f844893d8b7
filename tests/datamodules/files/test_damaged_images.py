"""Damaged image files: each is an image or is named, whatever its bytes."""

import io
import random
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.decoding import FORMATS, UnreadableImage, file_pixels
from tailmatch.datamodules.files.image_cache import find_files, open_images
from tailmatch.datamodules.files.pixels import image_pixels

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of most of these files

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
IMAGE = Image.fromarray(PIXELS)

SHORT, ASCII, RATIONAL, SRATIONAL, DOUBLE, LONG = 3, 2, 5, 10, 12, 4
ORIENTATION, RESOLUTION, SOFTWARE, CAMERA_DATA = 0x0112, 0x011A, 0x0131, 0x8769
TURNED = (ORIENTATION, SHORT, 1, struct.pack("<H", 6))


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data of tags, which Pillow would refuse to write: the tag, its type, the number of values, and these."""
    values, body = b"", struct.pack("<H", len(entries))
    for tag, kind, count, data in sorted(entries):
        place = struct.pack("<I", 14 + 12 * len(entries) + len(values))
        body += struct.pack("<HHI", tag, kind, count) + (data.ljust(4, b"\0") if len(data) <= 4 else place)
        values += data if len(data) > 4 else b""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + body + bytes(4) + values


ODD = {
    "software as a fraction": exif(TURNED, (SOFTWARE, RATIONAL, 1, struct.pack("<II", 1, 2))),
    "a resolution of -1/0": exif(TURNED, (RESOLUTION, SRATIONAL, 1, struct.pack("<ii", -1, 0))),
    "camera data that are the whole": exif(TURNED, (CAMERA_DATA, LONG, 1, struct.pack("<I", 8))),
    "a resolution that lies nowhere": exif(TURNED, (RESOLUTION, RATIONAL, 2**30, bytes(8))),
}
UNKNOWN = {
    "orientation 6/0": exif((ORIENTATION, RATIONAL, 1, struct.pack("<II", 6, 0))),
    "orientation NaN": exif((ORIENTATION, DOUBLE, 1, struct.pack("<d", float("nan")))),
    "orientation 9": exif((ORIENTATION, SHORT, 1, struct.pack("<H", 9))),
    "orientation as a word": exif((ORIENTATION, ASCII, 6, b"right\0")),
    "no EXIF data": b"Exif\0\0nothing of the kind",
}


def encoded(kind: str, image: Image.Image = IMAGE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_orientation_is_read_whatever_the_other_tags_are(kind: str) -> None:
    plain = file_pixels(encoded(kind))
    for name, data in ODD.items():
        assert torch.equal(file_pixels(encoded(kind, exif=data)), plain.rot90(-1, (1, 2))), name
    for name, data in UNKNOWN.items():
        assert torch.equal(file_pixels(encoded(kind, exif=data)), plain), name


def test_an_opened_image_is_turned_or_named_too(tmp_path: Path) -> None:
    (tmp_path / "odd.png").write_bytes(encoded("PNG", exif=ODD["software as a fraction"]))
    (tmp_path / "cut.png").write_bytes(encoded("PNG")[:200])
    turned = image_pixels(Image.open(tmp_path / "odd.png"))
    assert torch.equal(turned, torch.from_numpy(PIXELS).permute(2, 0, 1).rot90(-1, (1, 2)))
    with pytest.raises(UnreadableImage, match="cut.png: OSError: "):
        image_pixels(Image.open(tmp_path / "cut.png"))


FILES = [
    *(encoded(kind) for kind in FORMATS),
    *(encoded(kind, exif=data) for kind in ("JPEG", "WEBP") for data in list(ODD.values())[:2]),
    *(encoded("TIFF", compression=name, tiffinfo={ORIENTATION: 6}) for name in ("tiff_lzw", "jpeg", "packbits")),
    *(encoded("PNG", IMAGE.convert(mode)) for mode in ("P", "LA", "1")),
    encoded("JPEG", IMAGE.convert("CMYK")),
    encoded("TIFF", Image.fromarray(PIXELS[..., 0].astype(np.uint16))),
]
EACH = 20
"""How many damaged copies of each of these files there are."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Change some bytes, mostly of the header, in which the sizes and types are."""
    data = bytearray(content)
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(min(len(data), 200) if draw.random() < 0.7 else len(data))
        change = draw.choice(["one", "one", "four", "more", "fewer"])
        if change == "one":
            data[place] = draw.randrange(256)
        elif change == "four":
            data[place : place + 4] = draw.choice([bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff"])
        elif change == "more":
            data[place:place] = draw.randbytes(4)
        elif len(data) > 60:
            del data[place : place + 4]
    return bytes(data[: draw.randrange(1, len(data))] if draw.random() < 0.2 else data)


def test_every_damaged_file_is_an_image_or_is_named(tmp_path: Path) -> None:
    draw = random.Random(0)
    keys = [f"{number}.png" for number in range(EACH * len(FILES))]
    for number, key in enumerate(keys):
        (tmp_path / key).write_bytes(damaged(FILES[number % len(FILES)], draw))
    files = find_files(tmp_path, keys)
    with pytest.warns(UserWarning, match="unreadable images are left out") as said:
        found = open_images(files, 8, tmp_path / "cache", cached=True, skip_bad=True)
    [text] = [str(warning.message) for warning in said if "are left out" in str(warning.message)]
    kept = [keys[row] for row in found.kept.tolist()]
    named = re.findall(r"^  (\d+\.png) \(.+", text, re.MULTILINE)
    assert sorted(kept + named) == sorted(keys) and min(len(kept), len(named)) > 50
    assert found.pixels.shape == (len(kept), 3, 8, 8)
    with pytest.raises(SettingsError, match=rf"unreadable images \({len(named)}\): replace or remove them"):
        open_images(files, 8, tmp_path / "cache", cached=True, skip_bad=False)
