"""Tables of images: what they give, and what they say when something is wrong."""

from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from pyarrow import parquet

from tailmatch.datamodules import ImageFolder, ImageTable, LabeledFraction, ListedCounts
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files import table as table_module
from tailmatch.datamodules.images import Images

pytestmark = pytest.mark.filterwarnings("ignore:no validation images")  # most tables here need none

HEADER = "image,target,split"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(24):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (9, 7), (number, 2 * number, 100)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def write(folder: Path, rows: list[str], name: str = "list.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(("\n".join(rows) + "\n").encode(encoding))
    return path


def opened(path: Path, **options: object) -> ImageTable:
    options = {"image_size": 4, "cache_dir": str(path.parent / "cache"), "labeled_batch_size": 2, **options}
    data = ImageTable(str(path), **options)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def numbers(images: Images, rows: torch.Tensor) -> list[int]:
    """Which files rows are: their red channel."""
    return images.pixels.index_select(0, rows)[:, 0, 0, 0].tolist()


def plain(count: int = 20, classes: int = 2) -> list[str]:
    return ["image,target", *(f"images/{k}.png,class {k % classes}" for k in range(count))]


def test_splits_and_unlabeled_rows_are_as_the_table_says(folder: Path) -> None:
    rows = [HEADER, "images/3.png,dog,train", "images/4.png,cat,", "images/5.png,,train", "images/6.png,-1,train"]
    rows += ["images/7.png,cat,unlabeled", "images/8.png,dog,val", "images/9.png,cat,test", "images/10.png,dog,test"]
    data = opened(write(folder, rows))
    assert data.class_names == ["cat", "dog"] and data.num_classes == 2
    assert numbers(data.labeled.images, data.labeled.rows) == [4, 3]  # class by class
    assert data.labeled.targets.tolist() == [0, 1]
    assert numbers(data.unlabeled.images, data.unlabeled.rows) == [5, 6, 7]
    assert data.unlabeled.targets.tolist() == [-1] * 3  # also of 7.png: what the table says of it is not used
    assert data.val is not None and numbers(data.val.images, data.val.rows) == [8] and data.val.targets.tolist() == [1]
    assert data.test is not None and numbers(data.test.images, data.test.rows) == [9, 10]
    assert data.test.targets.tolist() == [0, 1]


def test_missing_splits_are_drawn_by_the_seed_from_every_class(folder: Path) -> None:
    rows = plain()
    first, same, other = (opened(write(folder, rows), seed=seed) for seed in (1, 1, 2))
    assert first.class_count_table() == {
        "labeled": [1, 1], "unlabeled": [6, 6], "validation": [1, 1], "test": [2, 2],
    }  # fmt: skip
    assert first.state_dict() == same.state_dict() != other.state_dict()
    sets = [first.labeled, first.unlabeled, first.val, first.test]
    assert sorted(torch.cat([part.rows for part in sets if part]).tolist()) == list(range(20))
    given = opened(write(folder, [HEADER, *(f"{row},train" for row in rows[1:])]), val_holdout=3, test_holdout=0.5)
    assert given.class_count_table()["validation"] == [3, 3] and given.class_count_table()["test"] == [5, 5]


def test_a_long_tail_is_drawn_from_it(folder: Path) -> None:
    data = opened(write(folder, plain()), class_counts=ListedCounts([4, 1], [2, 3]), test_holdout=1)
    assert data.class_count_table() == {"labeled": [4, 1], "unlabeled": [2, 3], "validation": [1, 1], "test": [1, 1]}


def test_numbers_are_sorted_as_numbers_and_minus_one_is_unlabeled(folder: Path) -> None:
    rows = ["image,target", "images/1.png,10", "images/2.png,9.0", "images/3.png,-1.0", "images/4.png,010"]
    data = opened(write(folder, rows), val_holdout=0, test_holdout=0)
    assert data.class_names == ["9", "010"]
    assert any("one value in several spellings" in note and "'10' = '010'" in note for note in data.warnings())
    assert data.labeled.targets.tolist() == [0, 1, 1]
    files = numbers(data.labeled.images, data.labeled.rows)
    assert files[0] == 2 and sorted(files[1:]) == [1, 4]
    assert numbers(data.unlabeled.images, data.unlabeled.rows) == [3]


SAME = ["hat", "hat ", "\ufeffhat", "\u00a0hat\u200b", "hat\u3000"]
BLUE_HAT = ["caf\u00e9 hat", "cafe\u0301 hat", "caf\u00e9\u00a0\u2009hat"]


def test_spaces_and_accents_make_no_other_class_or_category(folder: Path) -> None:
    cells = [*SAME, *BLUE_HAT, "  ", "Hat"]
    rows = ["image,target,color", *(f'images/{k}.png,"{cell}",{cell}' for k, cell in enumerate(cells))]
    data = opened(write(folder, rows), category_columns=["color"], val_holdout=0, test_holdout=0)
    assert data.class_names == ["Hat", "caf\u00e9 hat", "hat"]
    assert data.category_values == {"color": data.class_names}
    assert sorted(data.labeled.targets.tolist()) == [0] + [1] * 3 + [2] * 5 and len(data.unlabeled) == 1
    merged = [note for note in data.warnings() if "several spellings" in note]
    assert len(merged) == 2 and "column 'target' has 2 values" in merged[0] and "column 'color'" in merged[1]
    assert r"'hat' = 'hat ' = '\ufeffhat' = '\xa0hat\u200b'" in merged[0]
    assert r"'caf\xe9 hat' = 'cafe\u0301 hat'" in merged[0]  # which look the same


def test_numbers_keep_their_zeros_and_are_sorted_as_in_a_folder(folder: Path) -> None:
    rows = ["image,target", *(f"images/{k}.png,{cell}" for k, cell in enumerate(["010", "007", "2", "1.0"]))]
    path = write(folder, rows)
    data = opened(path, val_holdout=0, test_holdout=0)
    assert data.class_names == ["1", "2", "007", "010"] and data.warnings()
    for name in data.class_names:
        (folder / "train" / name).mkdir(parents=True)
    assert ImageFolder(str(folder)).class_names == data.class_names
    unset = ImageTable(str(path), image_size=4, cache_dir=str(folder / "cache"), val_holdout=0, test_holdout=0)
    unset.take_class_names(["a", "b", "c", "d"])  # of other data: a checkpoint's check says what differs
    assert unset.class_names == data.class_names
    unset.take_class_names(["10", "1", "2", "7"])  # as a former version wrote and sorted them
    unset.setup("fit")
    files = numbers(unset.labeled.images, unset.labeled.rows)
    assert unset.class_names == ["10", "1", "2", "7"] and files == [0, 3, 2, 1]


FORMATS: dict[str, Callable[[Path], ImageTable]] = {
    "tab": lambda f: opened(write(f, ["i\tc", "images/1.png\ta", "images/2.png\tb"], "l.tsv"), image_column="i",
                            target_column="c"),
    "list": lambda f: opened(write(f, ["images/1.png a", "images/2.png b", ""], "l.txt"), columns=["image", "target"]),
    "ids": lambda f: opened(write(f, ["1\ta", "2\tb"], "l.tsv"), columns=["image", "target"], image_suffix=".png",
                            root=str(f / "images")),
    "upper case": lambda f: opened(write(f, ["image,target", "images/1.png,a", "images/2.png,b"], "L.CSV")),
    "spaces in the header": lambda f: opened(write(f, ["image , target", "images/1.png,a", "images/2.png,b"])),
    "mark": lambda f: opened(write(f, ["image,target", "images/1.png,a", "images/2.png,b"], encoding="utf-8-sig")),
    "absolute": lambda f: opened(write(f, ["image,target", f"{f}/images/1.png,a", "./images//2.png,b"])),
    "quoted": lambda f: opened(write(f, ["note,image,target", '"x, ""y""\nz",images/1.png,a', ",images/2.png,b"])),
    "semicolon": lambda f: opened(write(f, ["image;target", "images/1.png;a", "images/2.png;b"]), delimiter=";"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FORMATS))
def test_other_formats_give_the_same(folder: Path, name: str) -> None:
    data = FORMATS[name](folder)
    assert data.class_names == ["a", "b"]
    assert numbers(data.labeled.images, data.labeled.rows) == [1, 2] and data.labeled.targets.tolist() == [0, 1]


def test_parquet_gives_the_same(folder: Path) -> None:
    names = [f"images/{k}.png" for k in range(4)]
    path = folder / "list.parquet"
    columns = {
        "image": names,
        "target": pyarrow.array([3, None, 5, -1]),
        "season": ["x", None, "y", "x"],
        "f": [0.5] * 4,
    }
    parquet.write_table(pyarrow.table(columns), path)
    data = opened(path, category_columns=["season"])
    assert data.class_names == ["3", "5"] and numbers(data.labeled.images, data.labeled.rows) == [0, 2]
    assert data.unlabeled.__getitems__([0, 1])["categories"].tolist() == [[-1], [0]]
    parquet.write_table(pyarrow.table({**columns, "target": [[1]] * 4}), path)
    with pytest.raises(ValueError, match=r"column 'target' is list<.*>, neither text nor numbers"):
        ImageTable(str(path))
    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="list.parquet is no Parquet file"):
        ImageTable(str(path))


def test_a_table_of_many_chunks_keeps_its_rows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "CHUNK", 3)
    whole = opened(
        write(folder, plain(20, classes=7)), class_counts=LabeledFraction(1.0), val_holdout=0, test_holdout=0
    )
    rows = whole.labeled.images
    assert numbers(rows, torch.arange(20)) == list(range(20)) and rows.targets.tolist() == [k % 7 for k in range(20)]


def test_categories_are_in_every_batch(folder: Path) -> None:
    rows = ["image,target,color,season,split"]
    for k in range(12):
        split = ("train", "train", "val", "test")[k % 4]
        rows.append(f"images/{k}.png,{'ab'[k % 3 % 2]},{('red', 'blue', '')[k % 3]},s{k % 2},{split}")
    data = opened(write(folder, rows), category_columns=["color", "season"], unlabeled_ratio=1, steps_per_epoch=2)
    assert data.category_values == {"color": ["blue", "red"], "season": ["s0", "s1"]}
    loaders = data.train_dataloader()
    batches = [*loaders["labeled"], *loaders["unlabeled"], *data.val_dataloader(), *data.test_dataloader()]
    assert len(batches) == 6
    for batch in batches:
        files = batch["image"][:, 0, 0, 0].tolist()
        assert batch["categories"].tolist() == [[(1, 0, -1)[k % 3], k % 2] for k in files]
    for columns, message in (
        (["color", "color"], "category_columns has 'color' more than once"),
        (["color", "target"], r"category_columns are .* target_column is 'target' .*; name each column once"),
    ):
        with pytest.raises(ValueError, match=message):
            opened(write(folder, rows), category_columns=columns)
    pooled = opened(write(folder, rows), category_columns=["color"], unlabeled_root=str(folder / "images"))
    assert pooled.unlabeled.__getitems__([0])["categories"].tolist() == [[-1]]


def test_pools_come_from_a_folder_or_another_table(folder: Path, tmp_path: Path) -> None:
    table = write(folder, plain(4))
    inside = opened(table, unlabeled_root=str(folder / "images"), val_holdout=0, test_holdout=1)
    assert sorted(numbers(inside.unlabeled.images, inside.unlabeled.rows)) == list(range(4, 24))
    assert len(inside.labeled) == 2  # all that are not held out: there are unlabeled images
    pool = folder / "elsewhere"
    pool.mkdir()
    Image.new("RGB", (9, 7), (99, 0, 0)).save(pool / "a.png")
    root = folder / "images"
    moved = write(folder, [row.replace("images/", "") for row in plain(4)], "moved.csv")
    outside = opened(moved, root=str(root), unlabeled_root=str(pool))
    assert outside.unlabeled.images.keys is not None and outside.unlabeled.images.keys[-1] == "../elsewhere/a.png"
    assert numbers(outside.unlabeled.images, outside.unlabeled.rows) == [99]
    other = write(folder, ["image,price", "images/9.png,3", "images/8.png,4"], "pool.csv")
    listed = opened(table, unlabeled_table=str(other))
    assert numbers(listed.unlabeled.images, listed.unlabeled.rows) == [9, 8]
    with pytest.raises(ValueError, match=r"row 2, column 'image': 'images/1.png' is in the other table too"):
        opened(table, unlabeled_table=str(write(folder, ["image", "images/1.png"], "pool.csv")))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the table is empty"),
        (["image,target"], "the table is empty, it has no rows below its header"),
        (["picture,target", "a.png,1"], r"no column 'image'; its columns are \['picture', 'target'\]"),
        (["Image,target", "a.png,1"], r"no column 'image'; .*; did you mean 'Image'\?$"),
        (["image1.jpg,3", "image2.jpg,1"], r"no column 'image'; .* \(of a file without header, give `columns`"),
        (["image,target,image", "a.png,1,b.png"], "two columns 'image'"),
        (["image,target", "a.png,1", "b.png"], r"row 3 has 1 cells, and there are 2 columns"),
        (["image,target", "", "b.png,1"], r"row 2 has 0 cells"),
        (["image,target", '"a.png,1'], "line 2 is no row of a table: unexpected end of data"),
        (["image,target", "a.png,1", ",1"], "row 3, column 'image' is empty"),
        (["image,target", "a.png,1", "./a.png,2"], "row 3, column 'image': 'a.png' is in row 2 too"),
        (["image,target", "a.png,1", "x/../../b.png,2"], r"row 3, column 'image': 'x/../../b.png' leaves the folder"),
        (["image,target", "/etc/passwd,1"], "row 2, column 'image': '/etc/passwd' leaves the folder"),
        (["image,target", "a,1", "b,cat", "c,2"], r"row 3, column 'target': 'cat' is text, and '1' \(row 2\)"),
        (["image,target", "a.png,-2"], "row 2, column 'target': '-2' is below -1"),
        (["image,target", "a.png,", "b.png,-1"], "column 'target' has no class in any row"),
        ([HEADER, "a.png,1,train", "b.png,1,dev"], "row 3, column 'split': 'dev' is no split; there are train, val"),
        ([HEADER, "a.png,1,train", "b.png,,test"], "row 3, column 'target': an image of split 'test' needs a target"),
    ],
)  # fmt: skip
def test_bad_tables_are_told_by_row_and_column(tmp_path: Path, rows: list[str], message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(ValueError, match=rf"list\.csv: .*{message}"):
        ImageTable(str(path))


def test_other_mistakes_are_named(folder: Path) -> None:
    table = write(folder, [*plain(4), "images/none.png,class 0"])
    with pytest.raises(FileNotFoundError, match=r"(?s)1 image files are not in .*row 6, column 'image': images/none"):
        opened(table)
    latin = write(folder, ["image,target", "images/1.png,caf\xe9", "images/2.png,tea"], encoding="latin-1")
    with pytest.raises(SettingsError, match=r"row 2, column 2: b'\\xe9' is not utf-8-sig; give the encoding"):
        ImageTable(str(latin))
    assert ImageTable(str(latin), encoding="latin-1").class_names == ["caf\xe9", "tea"]
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        wide = write(folder, ["image,target", "images/1.png,caf\xe9", "images/2.png,tea"], encoding=encoding)
        with pytest.raises(SettingsError, match=rf"list.csv is {encoding.upper()}, .* give encoding {encoding}"):
            ImageTable(str(wide))
        assert ImageTable(str(wide), encoding=encoding).class_names == ["caf\xe9", "tea"]
        with pytest.raises(SettingsError, match="list.csv is not utf-16; leave encoding out for UTF-8"):
            ImageTable(str(write(folder, plain(4))), encoding="utf-16")
    with pytest.raises(ValueError, match="delimiter"):
        ImageTable(str(write(folder, plain(4), "list.dat")))
    with pytest.raises(FileNotFoundError, match=r"no table .*nowhere\.csv"):
        ImageTable(str(folder / "nowhere.csv"))
    with pytest.raises(FileNotFoundError, match=r"no table .*, which is a folder; give a file"):
        ImageTable(str(folder))
    given = write(folder, [HEADER, "images/1.png,a,train", "images/2.png,a,val"])
    with pytest.raises(ValueError, match=r"val_holdout is 0\.2, and .* has 1 rows of split 'val'"):
        ImageTable(str(given), val_holdout=0.2)
    with pytest.raises(ValueError, match=r"row 1 has 3 cells, and `columns` names \['image', 'target'\]"):
        ImageTable(str(given), columns=["image", "target"])
    with pytest.raises(ValueError, match="class 'class 0': val_holdout wants 9 images, available"):
        opened(write(folder, plain(8)), val_holdout=9)
    with pytest.raises(FileNotFoundError, match="unlabeled_root .* is no folder"):
        opened(write(folder, plain(8)), unlabeled_root=str(folder / "nowhere"))
    for name, value in (
        ("delimiter", "::"),
        ("encoding", "utf-9"),
        ("image_size", 0),
        ("cache_budget_gb", -1),
        ("on_bad_image", "ignore"),
    ):
        with pytest.raises(ValueError, match=f"{name} is '?{value}"):
            opened(write(folder, plain(8)), **{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category_columns": "ab"}, "category_columns is 'ab'; it must be a list of names"),
        ({"columns": "ab"}, "columns is 'ab'; it must be a list of names"),
        ({"target_column": "image"}, "target_column is 'image' and image_column is 'image'; name each column once"),
        ({"encoding": "rot13"}, "encoding is 'rot13'; it must be one that Python knows"),
        ({"encoding": ""}, "encoding is ''"),
        ({"encoding": "a\0b"}, "encoding is 'a.*b'"),
        ({"min_class_count": -3}, "min_class_count is -3; it must be at least 0"),
    ],
)
def test_bad_options_are_named(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        opened(write(folder, plain()), **options)


def test_a_table_of_one_class_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"the classes are \[\'class 0\'\]; a classifier needs two or more"):
        opened(write(folder, plain(classes=1)))


def test_a_damaged_parquet_file_is_named(folder: Path) -> None:
    path = folder / "list.parquet"
    names = [f"images/{k % 24}.png" for k in range(5000)]
    parquet.write_table(pyarrow.table({"image": names, "target": list(range(5000))}), path)
    content = bytearray(path.read_bytes())
    content[30:90] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(SettingsError, match="list.parquet is damaged: "):
        opened(path)


def test_a_cell_with_a_zero_byte_is_a_missing_file(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"1 image files are not in .*\n.*row 22, column 'image'"):
        opened(write(folder, [*plain(), "images/\0.png,class 0"]))


def test_bad_images_are_named_by_row_or_left_out_with_their_labels(folder: Path) -> None:
    table = write(folder, plain(20))
    (folder / "images" / "5.png").write_bytes(b"no image")
    with pytest.raises(SettingsError, match=r"row 7, column 'image': images/5\.png \(no image of a known format\)"):
        opened(table)
    with pytest.warns(UserWarning, match=r"(?s)unreadable images are left out \(1\).*row 7"):
        data = opened(table, on_bad_image="skip", class_counts=LabeledFraction(1.0), val_holdout=0, test_holdout=0)
    files = numbers(data.labeled.images, data.labeled.rows)
    assert sorted(files) == [k for k in range(20) if k != 5]
    assert data.labeled.targets.tolist() == [k % 2 for k in files]


@pytest.mark.parametrize("num_workers", [1, 2])
def test_above_the_budget_workers_decode_the_same_batches(folder: Path, num_workers: int) -> None:
    def batches(**options: object) -> list[dict[str, torch.Tensor]]:
        data = opened(write(folder, plain()), seed=0, steps_per_epoch=3, unlabeled_ratio=2, **options)
        return [*data.train_dataloader()["unlabeled"], *data.val_dataloader()]  # type: ignore[list-item]

    for cached, lazy in zip(batches(), batches(cache_budget_gb=0, num_workers=num_workers), strict=True):
        assert cached.keys() == lazy.keys() and all(torch.equal(cached[name], lazy[name]) for name in cached)


def test_decoding_in_the_main_process_is_warned_of(folder: Path) -> None:
    with pytest.warns(UserWarning, match="num_workers is 0: give the number of processes"):
        opened(write(folder, plain()), cache_budget_gb=0.0)


def test_fingerprints_stay_at_another_size_and_change_with_the_files(folder: Path) -> None:
    def print_of(path: Path, **options: object) -> str:
        return opened(path, **options).labeled.images.fingerprint()

    table = write(folder, plain())
    assert print_of(table) == print_of(table, image_size=6) == print_of(table, cache_budget_gb=0, num_workers=1)
    assert print_of(table) != print_of(write(folder, plain(18)))


def shop(folder: Path, counts: dict[str, int]) -> Path:
    names = [name for name, count in counts.items() for _ in range(count)]
    return write(folder, ["image,target", *(f"images/{k}.png,{name}" for k, name in enumerate(names))])


def test_rare_classes_become_one(folder: Path) -> None:
    path = shop(folder, {"bag": 8, "hat": 2, "shoe": 6, "belt": 3})
    data = opened(path, min_class_count=4, class_counts=LabeledFraction(1.0), val_holdout=0, test_holdout=0)
    assert data.class_names == ["bag", "shoe", "other"] and data.class_counts == [8, 6, 5]
    assert sorted(numbers(data.labeled.images, data.labeled.rows)[14:]) == [8, 9, 16, 17, 18]
    note = "2 classes have fewer than 4 images (belt 3, hat 2); they are the class 'other'"
    assert data.warnings()[0] == note
    named = opened(path, min_class_count=4, rare_class="rare")
    assert named.class_names == ["bag", "shoe", "rare"]
    assert opened(path, min_class_count=2).class_names == ["bag", "belt", "hat", "shoe"]  # none is rare: no group


def test_rare_classes_that_are_few_together_are_unlabeled(folder: Path) -> None:
    rows = [f"images/{k}.png,{'bag' if k % 2 else 'shoe'},train" for k in range(12)]
    rows += ["images/12.png,hat,train", "images/13.png,hat,val", "images/14.png,belt,test", "images/15.png,bag,val"]
    data = opened(write(folder, [HEADER, *rows]), min_class_count=4, class_counts=LabeledFraction(0.5), test_holdout=0)
    assert data.class_names == ["bag", "shoe"]
    assert data.class_count_table()["validation"] == [1, 0]  # images 13 and 14 are in no set
    assert sorted(numbers(data.pool.images, data.pool.rows)) == list(range(13))
    assert 12 in numbers(data.unlabeled.images, data.unlabeled.rows)
    assert "belt 1, hat 2); they are unlabeled" in data.warnings()[0]


def test_a_group_of_rare_classes_needs_a_name_and_company(folder: Path) -> None:
    with pytest.raises(ValueError, match="rare_class is 'other', and a class with 4 images or more has that name"):
        opened(shop(folder, {"other": 8, "hat": 2, "shoe": 6}), min_class_count=4)
    with pytest.raises(ValueError, match=r"min_class_count is 9, which leaves the classes \['other'\]; the largest"):
        opened(shop(folder, {"bag": 8, "hat": 2, "shoe": 6}), min_class_count=9)


def test_the_command_line_knows_the_arguments_of_the_bases() -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(ImageTable, "data")
    assert {"root", "image_size", "val_holdout", "seed", "num_workers"} <= vars(parser.get_defaults().data).keys()
