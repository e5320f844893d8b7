"""Find the classes and the splits in a folder of images, in the layouts that people have."""

from dataclasses import dataclass
from pathlib import Path

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.class_names import sorted_names
from tailmatch.datamodules.files.listing import LeftOut, broken_links_in, folders_in, has_images

NAMES = {
    "train": ("train", "training"),
    "unlabeled": ("unlabeled", "unlabelled"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names that the folder of each split may have, in upper or lower case."""


@dataclass(frozen=True)
class FolderLayout:
    """Where the images of a folder are.

    Attributes:
        splits: The folder of each split that there is, relative to the root; `.` for `train` if the class folders lie
            in the root itself.
        class_names: The names of the class folders of `train`.
        others: The folders in the root that are no part of this.
    """

    splits: dict[str, str]
    class_names: list[str]
    others: list[str]


def folder_layout(root: Path) -> FolderLayout:
    """Find out where the images of a folder are.

    Raises:
        MissingFileError: The root is no folder, or there are no class folders (the message says what there is), or
            the folder of a split or a class is a link that leads nowhere.
        SettingsError: A split has two folders.
    """
    if not root.is_dir():
        hint = "" if root.is_absolute() else f"; {root} is relative to the folder in which this runs, {Path.cwd()}"
        hint = "; if it is a table of images, use ImageTable (--data.table)" if root.is_file() else hint
        raise MissingFileError(
            f"root {root.resolve()} is no folder, so there are no class folders in {root.resolve() / 'train'}{hint}"
        )
    folders = folders_in(root)
    every_name = [name for names in NAMES.values() for name in names]
    _refuse_links(root, [name for name in broken_links_in(root) if name.lower() in every_name])
    splits: dict[str, str] = {}
    for split, names in NAMES.items():
        found = [name for name in folders if name.lower() in names]
        if len(found) > 1:
            raise SettingsError(f"{root} has the folders {found}, which are both for {split!r}: leave one of them")
        splits |= dict.fromkeys([split] if found else [], "".join(found))
    others = [name for name in folders if name not in splits.values()]
    for folder in (splits[split] for split in ("train", "val", "test") if split in splits):
        _refuse_links(root / folder, broken_links_in(root / folder))
    if "train" in splits:
        class_names = folders_in(root / splits["train"])
    else:
        class_names = _classes_in_root(root, others) if not {"val", "test"} & splits.keys() else []
        others = [name for name in others if name not in class_names]
        splits = {"train": ".", **splits}
    if not class_names:
        raise _no_classes(root, splits["train"], folders)
    return FolderLayout(splits, sorted_names(class_names), others)


def _refuse_links(folder: Path, broken: list[str]) -> None:
    if broken:
        there = folder / broken[0]
        raise MissingFileError(f"{there} is a link to {there.readlink()}, which does not exist: mend or remove it")


def _classes_in_root(root: Path, folders: list[str]) -> list[str]:
    """List the folders with images, if there are several: `<class>/1.jpg` without `train/`."""
    if any(part.lower() in names for name in folders for part in folders_in(root / name) for names in NAMES.values()):
        return []  # they have splits of their own
    found = [name for name in folders if has_images(root / name)]
    own = root.resolve()
    if found and any(own.name.lower() in names for names in NAMES.values()):
        raise MissingFileError(
            f"root {own} is the folder {own.name} of a data set: give {own.parent}, so that it and those beside it are "
            "used as what they are (train/<class>/, val/<class>/ and so on)"
        )
    return found if len(found) > 1 else []


def _unwrapped(root: Path, folders: list[str]) -> list[Path]:
    """List the folders, each without what is only wrapped around it: of `archive/images/train`, `archive/images`."""
    found = [root / name for name in folders]
    for _ in range(4):
        inside = [folders_in(path) for path in found]
        found = [
            path / names[0] if len(names) == 1 and not _has_train(path) else path
            for path, names in zip(found, inside, strict=True)
        ]
    return found


def _has_train(folder: Path) -> bool:
    return any(name.lower() in NAMES["train"] for name in folders_in(folder))


def _no_classes(root: Path, train: str, folders: list[str]) -> MissingFileError:
    place, wanted = root / train, root / ("train" if train == "." else train)
    left_out, has, meant = LeftOut(), [], ""
    left_out.add_loose(place)
    if str(left_out):
        has.append(str(left_out))
    if train == "." and folders:
        has.append(f"the folders {', '.join(folders[:10])}{' ...' if len(folders) > 10 else ''}")
        deeper = [path for path in _unwrapped(root, folders) if _has_train(path)]
        meant = f" (is {deeper[0]} meant, which has a folder train?)" if len(deeper) == 1 else ""
    there = " and ".join(has) or "nothing"
    return MissingFileError(
        f"no class folders in {wanted.resolve()}, and {place.resolve()} has {there}{meant}: put the images of each "
        f"class into {wanted}/<class>/, such as {wanted}/cat/1.jpg (images in a table: ImageTable; to predict a folder "
        "of images: UnlabeledImages)"
    )
