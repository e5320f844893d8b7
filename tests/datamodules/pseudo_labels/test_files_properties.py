"""Every pseudo-label file says when it is read what was written, in both formats."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailmatch.datamodules.images import ImageRows, Images
from tailmatch.datamodules.pseudo_labels.columns import in_memory
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels, write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import ROW_ARRAYS, Array, Origin

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12)


class Written(NamedTuple):
    """A pool of images, and rows for some of them in any order."""

    images: Images
    rows: torch.Tensor
    columns: dict[str, Array]
    origin: Origin


@st.composite
def written(draw: Callable[[Any], Any]) -> Written:
    """Draw a pool with or without file names, and predictions of some images."""
    classes, pool = draw(st.lists(names, min_size=2, max_size=5, unique=True)), draw(st.integers(1, 12))
    keys = draw(st.one_of(st.none(), st.lists(names, min_size=pool, max_size=pool, unique=True)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**40)))
    pixels = torch.randint(256, (pool, 3, 2, 2), dtype=torch.uint8, generator=generator)
    sizes = None if keys is None else torch.randint(2**40, (pool,), generator=generator)
    images = Images(pixels, torch.zeros(pool, dtype=torch.long), keys and tuple(keys), sizes)
    rows = torch.randperm(pool, generator=generator)[: draw(st.integers(1, pool))]
    probs = (4 * torch.randn(len(rows), len(classes), generator=generator)).softmax(1)
    columns: dict[str, Array] = {
        "key": rows.numpy() if keys is None else np.array([keys[row] for row in rows]),
        "label": probs.argmax(1).numpy(),
        "confidence": probs.amax(1).numpy(),
    }
    if sizes is not None:
        columns["size"] = sizes[rows].numpy()
        if draw(st.booleans()):
            columns["digest"] = np.arange(16 * len(rows), dtype=np.uint8).reshape(len(rows), 16)
    if draw(st.booleans()):
        columns["probs"] = probs.numpy()
    return Written(images, rows, columns, Origin.of(images, classes, draw(st.sampled_from(["", "ab12"]))))


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@given(content=written(), random=st.randoms(use_true_random=False))
def test_what_is_read_is_what_was_written(suffix: str, content: Written, random: Any) -> None:
    images, rows, columns, origin = content
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}{suffix}" for name in "ab"]
        for file in files:
            write_pseudo_labels(file, {name: in_memory(array) for name, array in columns.items()}, origin)
        assert files[0].read_bytes() == files[1].read_bytes()
        read = read_pseudo_labels(files[0])
    assert read.origin == origin
    for name in ROW_ARRAYS:
        array = getattr(read, name)
        assert (array is None) == (name not in columns)
        assert array is None or array.tolist() == columns[name].tolist(), name

    order = torch.tensor(random.sample(range(len(images.pixels)), len(images.pixels)))
    aligned = read.align(ImageRows(images, order, labeled=False), origin.class_names)
    place = {row: number for number, row in enumerate(rows.tolist())}
    for number, row in enumerate(order.tolist()):
        known = row in place
        assert aligned.label[number] == (int(columns["label"][place[row]]) if known else -1)
        assert aligned.confidence[number] == (float(columns["confidence"][place[row]]) if known else 0)
        if aligned.probs is not None and known:
            assert aligned.probs[number].tolist() == columns["probs"][place[row]].tolist()
