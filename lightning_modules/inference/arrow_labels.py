"""Label images in Arrow batches with an exported program: the worker of Spark, of Ray, or of a plain loop.

A worker imports torch, Pillow and pyarrow, and neither Lightning nor the networks of this package: the program has the
network and its preprocessing. It is the one of `tailmatch export`, and computes the same bits as the network itself.

Input columns: `key` (string), the name of the image; `content` (binary), the bytes of its file, or `path` (string),
where the file is; and the names of the program's category levels (string), where they are known. Output columns are
those of pseudo-label files of format 2 (`datamodules/pseudo_labels/files.py`), and

* `error`: why the image has no label; null for one that has. Its `label` is then -1 and its `confidence` 0.
* `top_label`, `top_confidence`: the most likely classes and their probabilities, the most likely first; optional.
"""

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.cache_index import DIGEST_BYTES
from tailmatch.datamodules.files.decoding import (
    MOST_BYTES,
    UnreadableImage,
    decode_image,
    file_pixels,
    fitted,
    read_image_file,
)

BATCH = 256
"""The number of images that pass through the network together: that of `tailmatch predict`."""


@dataclass(frozen=True)
class Wanted:
    """What a worker does with its images.

    Attributes:
        batch_size: The number of images that pass through the network together.
        probs: Whether to give the probabilities of all classes.
        top: The number of most likely classes to list; 0: no list.
    """

    batch_size: int = BATCH
    probs: bool = False
    top: int = 0


def output_schema(wanted: Wanted) -> pa.Schema:
    """Return the schema of `label_batches`."""
    fields = [
        ("key", pa.string()),
        ("size", pa.int64()),
        ("digest", pa.binary()),
        ("label", pa.int64()),
        ("confidence", pa.float32()),
    ]
    if wanted.probs:
        fields.append(("probs", pa.list_(pa.float32())))
    if wanted.top:
        fields += [("top_label", pa.list_(pa.int64())), ("top_confidence", pa.list_(pa.float32()))]
    return pa.schema([*fields, ("error", pa.string())])


@dataclass(frozen=True)
class WorkerModel:
    """An exported program in a worker.

    Attributes:
        program: The program: `uint8 [B, 3, H, W]` (and `int64 [B, L]`) to probs and logits `float32 [B, K]`.
        class_names: The names of the K classes.
        image_size: The height and width of the images, H and W.
        categories: The values of each of the L category levels, by its name.
    """

    program: Callable[..., tuple[Tensor, Tensor]]
    class_names: Sequence[str]
    image_size: tuple[int, int]
    categories: dict[str, list[str]]

    @classmethod
    def load(cls, source: bytes | str | Path) -> "WorkerModel":
        """Load a `.pt2` file of `tailmatch export`, or its content. It is a program: load none that you don't trust.

        Raises:
            SettingsError: It is no such file.
        """
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        name = "the program" if isinstance(source, bytes) else str(source)
        if not zipfile.is_zipfile(io.BytesIO(content)):  # torch would print its traceback
            raise SettingsError(f"{name} is no program of torch.export: it is no archive")
        facts = {"class_names": "", "image_size": "", "categories": ""}
        try:
            program = torch.export.load(io.BytesIO(content), extra_files=facts).module()
        except Exception as error:  # a damaged archive raises errors of any kind
            raise SettingsError(f"{name} is no program of torch.export: {type(error).__name__}: {error}") from error
        known = {key: json.loads(text) for key, text in facts.items() if text}
        missing = [key for key in ("class_names", "image_size") if key not in known]
        if missing:
            raise SettingsError(f"{name} has no {' and no '.join(missing)}: it must be made by `tailmatch export`")
        height, width = known["image_size"]
        return cls(program, known["class_names"], (height, width), known.get("categories", {}))

    @torch.inference_mode()
    def probs(self, images: Tensor, categories: Tensor | None) -> Tensor:
        """Predict `uint8 [B, 3, H, W]` and, where the program has levels, `int64 [B, L]`: `float32 [B, K]`."""
        return (self.program(images) if categories is None else self.program(images, categories))[0]


_LOADED: dict[str, WorkerModel] = {}
"""The model of this process, by its digest."""


def loaded_once(digest: str, content: Callable[[], bytes]) -> WorkerModel:
    """Load the model of a worker process: one, which stays for its next tasks, and computes on one thread.

    Args:
        digest: What tells the content from others.
        content: A function that gives it, called if it is not loaded yet.
    """
    if digest not in _LOADED:
        torch.set_num_threads(1)  # each slot has a process
        _LOADED.clear()
        _LOADED[digest] = WorkerModel.load(content())
    return _LOADED[digest]


def label_batches(
    batches: Iterable[pa.RecordBatch], model: WorkerModel, wanted: Wanted = Wanted()
) -> Iterator[pa.RecordBatch]:
    """Label the rows of Arrow batches, in their order, whatever the sizes of the batches.

    An image that cannot be read becomes a row with its `error`.

    Raises:
        SettingsError: A column is missing.
    """
    block = _Block(model, wanted)
    for batch in batches:
        for row in _rows(batch, list(model.categories)):
            block.add(*row)
            if len(block.keys) == wanted.batch_size:
                yield block.labeled()
                block = _Block(model, wanted)
    if block.keys:
        yield block.labeled()


def _rows(batch: pa.RecordBatch, levels: Sequence[str]) -> Iterator[tuple[str | None, Callable[[], bytes], list[Any]]]:
    """Yield the key of each row, a function that reads its content, and its values of category levels."""
    names = batch.schema.names
    source = "content" if "content" in names else "path"
    for name in ("key", source):
        if name not in names:
            raise SettingsError(f"a batch has the columns {names}; it needs key, and content or path")
    columns = [batch.column(level) if level in names else None for level in levels]
    reads = _content if source == "content" else _file
    for key, value, *values in zip(
        batch.column("key"), batch.column(source), *(column for column in columns if column is not None), strict=True
    ):
        known = iter(values)
        categories = [next(known).as_py() if column is not None else None for column in columns]
        yield key.as_py(), lambda value=value: reads(value.as_py()), categories  # type: ignore[misc]


def _content(value: bytes | None) -> bytes:
    if value is None:
        raise UnreadableImage("no content")
    if len(value) > MOST_BYTES:
        raise UnreadableImage(f"{len(value) / 1e9:.1f} GB, more than an image file has")
    return value


def _file(value: str | None) -> bytes:
    if value is None:
        raise UnreadableImage("no path")
    return read_image_file(value)


@dataclass
class _Block:
    """Images that pass through the network together."""

    model: WorkerModel
    wanted: Wanted
    keys: list[str | None] = field(default_factory=list)
    sizes: list[int | None] = field(default_factory=list)
    digests: list[bytes | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    pixels: list[Tensor] = field(default_factory=list)
    categories: list[list[int]] = field(default_factory=list)

    def add(self, key: str | None, read: Callable[[], bytes], values: Sequence[str | None]) -> None:
        """Add a row, with its pixels unless it has an error."""
        self.keys.append(key)
        self.sizes.append(None)
        self.digests.append(None)
        self.errors.append(None)
        try:
            if key is None:
                raise UnreadableImage("no key")
            data = read()
            self.sizes[-1] = len(data)
            self.digests[-1] = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
            self.pixels.append(self._decoded(data))
        except UnreadableImage as error:
            self.errors[-1] = str(error)
            return
        known = zip(self.model.categories.values(), values, strict=True)
        self.categories.append([places.index(value) if value in places else -1 for places, value in known])

    def _decoded(self, data: bytes) -> Tensor:
        height, width = self.model.image_size
        if height == width:  # as in the cache of a training, also of JPEG files
            return decode_image(data, height)
        return fitted(file_pixels(data), height, width)

    def labeled(self) -> pa.RecordBatch:
        """Predict the rows."""
        names = self.model.class_names
        probs = torch.zeros(len(self.keys), len(names))
        good = [row for row, error in enumerate(self.errors) if error is None]
        if good:
            levels = torch.tensor(self.categories) if self.model.categories else None
            probs[good] = self.model.probs(torch.stack(self.pixels), levels)
        confidence, label = probs.max(dim=1)
        for row in good:
            if not math.isfinite(confidence[row]):
                self.errors[row] = "its prediction is not finite"
        bad = torch.tensor([error is not None for error in self.errors])
        columns = {
            "key": self.keys,
            "size": self.sizes,
            "digest": self.digests,
            "label": label.masked_fill(bad, -1).numpy(),
            "confidence": confidence.masked_fill(bad, 0).numpy(),
            "error": self.errors,
        }
        if self.wanted.probs:
            columns["probs"] = _lists(probs, bad)
        if self.wanted.top:
            ranked = probs.sort(dim=1, descending=True, stable=True)
            columns["top_label"] = _lists(ranked.indices[:, : self.wanted.top], bad)
            columns["top_confidence"] = _lists(ranked.values[:, : self.wanted.top], bad)
        schema = output_schema(self.wanted)
        return pa.record_batch([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema)


def _lists(values: Tensor, bad: Tensor) -> pa.Array:
    """Make lists of the rows of a matrix; null for bad rows."""
    content = pa.array(values[~bad].reshape(-1).numpy())
    lengths = torch.where(bad, 0, values.shape[1])
    ends = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).to(torch.int32)
    return pa.ListArray.from_arrays(pa.array(ends.numpy()), content, mask=pa.array(bad.numpy()))
