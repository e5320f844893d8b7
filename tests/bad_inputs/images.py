"""Faults of image files and of folders of images."""

from io import BytesIO

import numpy as np
from PIL import Image

from tests.bad_inputs.engine import Row, row
from tests.bad_inputs.prepared import FIT, PREDICT
from tests.bad_inputs.spoil import copy, cut, fifo, html, link, make, pointer, remove, rights, write

IMAGE = "images/train/cat/0.png"
PHOTO = "photos/1.png"


def encoded(image: Image.Image, suffix: str) -> bytes:
    """Give the bytes of an image file."""
    buffer = BytesIO()
    image.save(buffer, suffix)
    return buffer.getvalue()


JPEG = encoded(Image.new("RGB", (64, 64), "red"), "JPEG")
FLOATS = encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
BOMB = encoded(Image.new("1", (60_000, 60_000)), "PNG")
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>\n'


def trained(name: str, *spoils: object, file: str = IMAGE, **more: object) -> Row:
    """Make a row of a training image, which the message must name."""
    return row(f"{name} in a training set", FIT, file, given=spoils, **{"lines": 4, **more})


def predicted(name: str, *spoils: object, file: str = PHOTO, **more: object) -> Row:
    """Make a row of an image to predict, which the message must name."""
    return row(f"{name} in a prediction", PREDICT, file, given=spoils, **{"lines": 4, **more})


ROWS = [
    row("no such root", f"{FIT} --data.root nowhere", "nowhere"),
    row("a root without train", f"{FIT} --data.root photos", "photos/train", "<class>"),
    row("the train folder as root", f"{FIT} --data.root images/train", "images/train is the folder train", "<class>"),
    row("the test folder as root", f"{FIT} --data.root images/test", "images/test is the folder test", "<class>"),
    row("the folder above as root", f"{FIT} --data.root .", "is images meant"),
    row("images in train in no class folder", FIT, "images/train", "images outside of the class folders: 1", given=[*(remove(f"images/train/{name}") for name in ("cat", "dog", "owl")), copy(PHOTO, "images/train/1.png")]),
    row("validation images but no train", FIT, "images/train", "the folders test, unlabeled, val", given=[remove("images/train")]),
    row("a class that is a broken link", FIT, "images/train/owl is a link to", "nowhere", given=[remove("images/train/owl"), link("images/train/owl", "nowhere")]),
    row("a set that is a broken link", FIT, "images/val is a link to", "nowhere", given=[remove("images/val"), link("images/val", "nowhere")]),
    row("a table beside images as root", f"{FIT} --data.root shop", ".csv 1", "the folders photos", "ImageTable", given=[copy("photos", "shop/photos"), copy("table.csv", "shop/table.csv")]),
    row("two folders for validation", FIT, "['val', 'valid']", given=[copy("images/val", "images/valid")]),
    row("an empty folder of validation images", FIT, "images/val", "<class>", given=[remove("images/val"), make("images/val")]),
    row("a test folder of unknown images in a folder", FIT, "images/test", "['all']", "UnlabeledImages", given=[remove("images/test"), copy("photos", "images/test/all")]),
    row("a class of other files", FIT, "images/train/fox", ".heic 1", given=[write("images/train/fox/0.heic", "x")]),
    row("a file as root", f"{FIT} --data.root table.csv", "table.csv", "ImageTable"),
    row("an empty class", FIT, "images/train/fox", "no images", given=[make("images/train/fox")]),
    row("a class in val that train lacks", FIT, "images/val", "fox", given=[copy("images/val/cat", "images/val/fox")]),
    row("a class in test in other letters", FIT, "images/test", "Cat", given=[copy("images/test/cat", "images/test/Cat")]),
    row("a single class", FIT, "['cat']", "two or more", given=[remove(f"images/{split}/{name}") for split in ("train", "val", "test") for name in ("dog", "owl")]),
    row("a folder that may not be read", FIT, "images/train/dog", "ermission", given=[rights("images/train/dog", 0)]),
    row("a set that may not be read", FIT, "images/unlabeled", "ermission", given=[rights("images/unlabeled", 0)]),
    trained("an empty image", write(IMAGE)),
    trained("an image cut in the middle", cut(IMAGE)),
    trained("a web page", html(IMAGE)),
    trained("a pointer of git-lfs", pointer(IMAGE)),
    trained("a text", write(IMAGE, "cat\n")),
    trained("a JPEG cut in the middle", write("images/train/cat/9.jpg", JPEG[: len(JPEG) // 2]), file="images/train/cat/9.jpg"),
    trained("floats without a range", write("images/train/cat/9.tif", FLOATS), file="images/train/cat/9.tif"),
    trained("a decompression bomb", write("images/train/cat/9.png", BOMB), file="images/train/cat/9.png"),
    trained("a broken link", link(IMAGE, "nowhere.png"), lines=5),
    trained("a link to itself", link(IMAGE, "0.png"), lines=5),
    trained("a FIFO", fifo(IMAGE)),
    trained("an endless device", link(IMAGE, "/dev/zero")),
    trained("an image that may not be read", rights(IMAGE, 0)),
    trained("a web page among unlabeled images", html("images/unlabeled/0.png"), file="images/unlabeled/0.png"),
    trained("a web page among test images", html("images/test/owl/0.png"), file="images/test/owl/0.png"),
    row("ten bad images", FIT, *(f"images/train/cat/{n}.png" for n in range(6)), given=[html(f"images/train/{name}/{n}.png") for n in range(6) for name in ("cat", "dog")], lines=20),
    row("an unknown answer to bad images", f"{FIT} --data.on_bad_image ignore", "on_bad_image", "ignore", "skip", code=2),
    row("a cache folder that is a file", f"{FIT} --data.cache_dir table.csv", "table.csv"),
    row("a cache folder that may not be written", f"{FIT} --data.cache_dir closed", "closed", "ermission", given=[make("closed"), rights("closed", 0o555)]),
    row("a prediction of no such folder", f"{PREDICT} --data.root nowhere", "nowhere"),
    row("a prediction of an empty folder", f"{PREDICT} --data.root empty", "empty", "no images", given=[make("empty")]),
    row("a prediction of a folder without images", f"{PREDICT} --data.root runs", "runs", "no images"),
    row("a prediction of a table as root", f"{PREDICT} --data.root table.csv", "table.csv is a table", "UnlabeledTable"),
    row("a prediction of a file that is no image", f"{PREDICT} --data.root small.yaml", "small.yaml", lines=4),
    row("a prediction without a root", "predict --ckpt_path runs/good/checkpoints/best.ckpt --data UnlabeledImages", "root", code=2),
    row("a prediction with other classes", f"{PREDICT} --data.class_names [cat,dog]", "classes", "owl"),
    row("a prediction with size 0", f"{PREDICT} --data.image_size 0", "image_size is 0"),
    row("only bad images with skip", f"{PREDICT} --data.on_bad_image skip", "photos", given=[html(f"photos/{n}.png") for n in range(3)], lines=8),
    predicted("an empty image", write(PHOTO)),
    predicted("an image cut in the middle", cut(PHOTO)),
    predicted("a web page", html(PHOTO)),
    predicted("a pointer of git-lfs", pointer(PHOTO)),
    predicted("a broken link", link(PHOTO, "nowhere.png"), lines=5),
    predicted("a FIFO", fifo(PHOTO)),
    predicted("an endless device", link(PHOTO, "/dev/zero")),
    predicted("an image that may not be read", rights(PHOTO, 0)),
]  # fmt: skip
