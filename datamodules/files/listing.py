"""List the image files of folders, and say what is left out."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.class_names import printable
from tailmatch.datamodules.files.decoding import IMAGE_SUFFIXES

SHOWN = 5
"""How many suffixes, links or folders a message names; it counts the others."""

LONGEST_SUFFIX = 10
"""How many characters a suffix may have; what follows the last dot of a longer name is no suffix."""

BY_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx"}
"""What Windows and macOS write beside images, in lower case."""


@dataclass
class LeftOut:
    """What is in folders of images and is not used, apart from hidden names.

    Attributes:
        suffixes: The number of files of each suffix that is none of an image.
        links: The links to folders, which are not followed, since they may lead round in a circle, and those that lead
            nowhere.
        loose: The number of images in each folder that lie outside of its class folders.
        folders: The folders with images that are no part of the layout.
        empty: The folders without images, where a class was looked for.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    loose: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def add_file(self, name: str) -> None:
        """Count a file that is no image."""
        suffix = os.path.splitext(name)[1].lower()
        self.suffixes[suffix if len(suffix) <= LONGEST_SUFFIX else ""] += 1

    def add_loose(self, folder: Path) -> None:
        """Count the files in a folder that are in none of its class folders."""
        names = _files_in(folder)
        for name in names:
            if not is_image(name):
                self.add_file(name)
        if images := sum(map(is_image, names)):
            self.loose[str(folder)] += images

    def __str__(self) -> str:
        """Name what is left out, with counts, in one line; empty if there is nothing."""
        said = []
        if self.suffixes:
            most = sorted(self.suffixes.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
            kinds = [f"{printable(suffix) or 'no suffix'} {count}" for suffix, count in most]
            kinds += ["others"] if len(self.suffixes) > SHOWN else []
            said.append(f"files of other kinds: {self.suffixes.total()} ({', '.join(kinds)})")
        said += [f"images outside of the class folders: {count} in {folder}" for folder, count in self.loose.items()]
        named = {
            "links to folders or to nothing": self.links,
            "other folders of images": self.folders,
            "folders without images": self.empty,
        }
        said += [f"{what}: {len(names)} ({_some(names)})" for what, names in named.items() if names]
        return "; ".join(said)

    def warn(self, root: Path) -> None:
        """Say in one warning what is left out, if there is anything."""
        said = str(self)
        if said:
            rank_zero_warn(f"{root}: left out are {said}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, sorted(names)[:SHOWN])) + more


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is never data: its name begins with a dot, or a system writes it beside images."""
    return name.startswith(".") or name.lower() in BY_SYSTEMS


def is_image(name: str) -> bool:
    """Tell whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_hidden(name)


def folders_in(folder: Path) -> list[str]:
    """List the names of the folders in a folder, links to folders too, in alphabetical order, without hidden ones."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def broken_links_in(folder: Path) -> list[str]:
    """List the names of the links in a folder that lead nowhere and are no images by their names."""
    names = (path.name for path in folder.iterdir() if path.is_symlink() and not path.exists())
    return sorted(name for name in names if not is_hidden(name) and not is_image(name))


def images_directly_in(folder: Path) -> int:
    """Count the images in a folder that are in none of its folders."""
    return sum(map(is_image, _files_in(folder)))


def _files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.is_dir() and not is_hidden(path.name)]


def has_images(folder: Path) -> bool:
    """Tell whether there is an image in a folder, at any depth."""
    return any(is_image(name) for _, names in _walk(folder, LeftOut(), folder) for name in names)


def image_files(root: Path, folder: str, left_out: LeftOut | None = None) -> list[str]:
    """List the image files in `root/folder` at any depth: sorted paths relative to `root`, `/` between folders.

    Hidden files and folders (see `is_hidden`) are left out, and links to folders are not followed.

    Args:
        root: The folder that the paths are relative to.
        folder: The folder to list, relative to `root`.
        left_out: What is left out is added to it. None: a warning says what is left out.

    Raises:
        OSError: The system refuses to list a folder. A folder that is missing has no images.
    """
    out = LeftOut() if left_out is None else left_out
    found = []
    for inside, names in _walk(root / folder, out, root):
        for name in names:
            if is_image(name):
                found.append(inside + name)
            elif os.path.islink(root / inside / name) and not os.path.exists(root / inside / name):
                out.links.append(inside + name)
            else:
                out.add_file(name)
    if left_out is None:
        out.warn(root / folder)
    return sorted(found, key=lambda key: key.split("/"))


def _walk(folder: Path, left_out: LeftOut, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Iterate over the folders in a folder: the path relative to `root`, with a `/` at its end, and names of files."""
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        inside = os.path.relpath(parent, root).replace(os.sep, "/") + "/"
        inside = "" if inside == "./" else inside
        folders[:] = [name for name in folders if not is_hidden(name)]
        left_out.links += [inside + name for name in folders if os.path.islink(os.path.join(parent, name))]
        yield inside, [name for name in names if not is_hidden(name)]


def _refuse(error: OSError) -> None:
    """Raise an error that `os.walk` would pass over in silence."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
