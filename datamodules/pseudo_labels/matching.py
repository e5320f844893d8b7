"""Which image of a data set each row of a pseudo-label file is of, by the path, size and content of its file."""

from dataclasses import dataclass, replace

import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import Images
from tailmatch.datamodules.pseudo_labels.labels import NAMED_KEYS, PseudoLabelFile, some

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """The images of N rows.

    Attributes:
        places: `int64 [N]`, the place of each row's image in the data set, -1 where it has none; all others differ.
        moved: The number of rows that name another path, and whose content is that of an image.
        reasons: Why the others have no image, in clauses with numbers and examples.
    """

    places: Places
    moved: int
    reasons: list[str]


def match(file: PseudoLabelFile, images: Images) -> Matches:
    """Find the images of the rows of a file of format 2.

    A row is of the image of its path if the size is the same and, where both are known, the digest of the content. Any
    other row is of an image with its content, if there is one, such as an image that was labeled in a folder of its
    own. Rows and images that repeat a content are paired in their order.
    """
    if file.size is None or images.keys is None or images.file_sizes is None:
        raise ValueError("only rows of format 2 and images from files are matched")
    row_of = {key: row for row, key in enumerate(images.keys)}
    places = np.array([row_of.get(key, -1) for key in file.key.tolist()], np.int64)
    sizes_here = images.file_sizes.numpy()[places]
    resized = (places >= 0) & (sizes_here != file.size)
    changed, found = np.zeros_like(resized), np.full_like(places, -1)
    digests = None if images.digests is None else images.digests.numpy()
    if file.digest is not None and digests is not None and digests.shape[1:] == file.digest.shape[1:]:
        changed = (places >= 0) & ~resized & (digests[places] != file.digest).any(axis=1)
        astray = (places < 0) | resized | changed
        found[astray] = _by_content(file.digest[astray], digests, set(places[~astray].tolist()))
    moved = found >= 0
    places[resized | changed] = -1
    places[moved] = found[moved]
    reasons = []
    if (lost := (places < 0) & ~resized & ~changed).any():
        reasons.append(f"{int(lost.sum()):,} name no image of this data set ({some(file.key[lost].tolist())})")
    if (resized := resized & ~moved).any():
        others = resized.nonzero()[0][:NAMED_KEYS]
        sizes = [f"{file.key[i]}: {file.size[i]:,} bytes, here {sizes_here[i]:,}" for i in others]
        reasons.append(f"{int(resized.sum()):,} are of files of another size ({'; '.join(sizes)})")
    if (changed := changed & ~moved).any():
        reasons.append(f"{int(changed.sum()):,} are of files of another content ({some(file.key[changed].tolist())})")
    return Matches(places, int(moved.sum()), reasons)


def within(file: PseudoLabelFile, images: Images) -> PseudoLabelFile:
    """Take the rows of images of a pool, under the paths of these; warn of others, with their numbers and examples.

    In format 1 the whole file is of one pool, so that all rows are taken; `PseudoLabelFile.align` checks them.

    Raises:
        SettingsError: No row is of an image of this pool.
    """
    if file.size is None or images.keys is None or images.file_sizes is None:
        return file
    found = match(file, images)
    here = found.places >= 0
    if not here.any():
        raise SettingsError(
            f"it has no image of this data set: of {len(here):,} rows, {' and '.join(found.reasons)}; its rows must "
            "name images of this data set by path and size, or have the digests of their content"
        )
    if found.reasons:
        rank_zero_warn(f"of {len(here):,} rows of pseudo_labels, {' and '.join(found.reasons)}; they are not used")
    if found.moved:
        rank_zero_info(f"{found.moved:,} rows of pseudo_labels name other paths, and are known by their content")
    kept = file.take(here)
    return replace(kept, key=np.array([images.keys[place] for place in found.places[here]], object))


def _by_content(wanted: NDArray[np.uint8], digests: NDArray[np.uint8], taken: set[int]) -> Places:
    """Pair digests `uint8 [n, D]` with images that are not taken; -1 for digests without one."""
    free: dict[bytes, list[int]] = {}
    if len(wanted):
        for place, digest in enumerate(digests):
            if place not in taken:
                free.setdefault(digest.tobytes(), []).append(place)
    queues = {digest: iter(places) for digest, places in free.items()}
    return np.array([next(queues.get(digest.tobytes(), iter(())), -1) for digest in wanted], np.int64)
