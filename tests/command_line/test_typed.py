"""What is typed, before it is parsed: the files it means, and settings that would be lost."""

from itertools import pairwise
from pathlib import Path

import pytest

from tailmatch.command_line.typed import Typed, check_overlays
from tailmatch.datamodules.arguments import MissingFileError, SettingsError

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    texts = {
        "overlay": "data: {init_args: {unlabeled_ratio: 1}}",
        "digits": "data: {class_path: tailmatch.datamodules.Digits}",
        "folder": "data: {class_path: tailmatch.datamodules.ImageFolder}",
        "method": "model: {class_path: tailmatch.lightning_modules.FixMatch}",
        "network": "model: {init_args: {network: tailmatch.lightning_modules.networks.CifarResNet}}",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in texts}


@pytest.mark.parametrize(
    "words",
    [
        ["digits", "overlay", "method", "network"],
        ["method", "digits", "network", "overlay"],
        ["digits", "overlay", "digits", "method"],  # the same class again keeps them
        ["--data=Digits", "overlay"],
        ["digits", "overlay", "--data", "tailmatch.datamodules.Digits"],
    ],
)
def test_settings_after_their_class_are_kept(words: list[str], files: dict[str, str]) -> None:
    check_overlays(Typed.read(line(words, files)))


@pytest.mark.parametrize(
    ("words", "part", "name"),
    [
        (["overlay", "digits"], "data", "Digits"),
        (["overlay", "--data=tailmatch.datamodules.Digits"], "data", "Digits"),
        (["digits", "overlay", "folder"], "data", "ImageFolder"),
        (["digits", "overlay", "--data", "ImageFolder"], "data", "ImageFolder"),
        (["network", "digits", "method"], "model", "FixMatch"),
    ],
)
def test_settings_before_their_class_are_refused(words: list[str], part: str, name: str, files: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"has settings of the {part} and comes before the {part} {name} is named"):
        check_overlays(Typed.read(line(words, files)))


def line(words: list[str], files: dict[str, str]) -> list[str]:
    """A command line: names of files become `--config FILE`."""
    return [part for word in words for part in (["--config", files[word]] if word in files else [word])]


def test_options_are_read_in_the_order_typed(files: dict[str, str]) -> None:
    typed = Typed.read(["fit", "--model=FixMatch", "-c", files["digits"], "--run_dir", "a", "--run_dir=b", "--config"])
    assert typed.subcommand == "fit" and typed.values("--run_dir") == ["a", "b"] and typed.values("--ckpt_path") == []
    assert [option for option, _ in typed.options] == ["--model", "--config", "--run_dir", "--run_dir", "--config"]
    assert list(typed.configs())[0] == (files["digits"], {"data": {"class_path": "tailmatch.datamodules.Digits"}})


@pytest.mark.parametrize(
    "name", ["data/digits_lt.yaml", "configs/data/digits_lt.yaml", "./configs/data/digits_lt.yaml"]
)
def test_a_packaged_configuration_is_found_by_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = CONFIGS / "data" / "digits_lt.yaml"
    for words in (["--config", name], [f"--config={name}"], ["-c", name]):
        typed = Typed.read(words)
        assert Path(typed.words[-1].removeprefix("--config=")).samefile(file)
        [(source, content)] = typed.configs()  # what reads it by hand reads the same
        assert Path(source).samefile(file) and content["data"]["class_path"] == "tailmatch.datamodules.Digits"


def test_a_file_goes_before_a_packaged_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text("run_dir: mine")
    assert Typed.read(["fit", "--config=demo.yaml"]).words == ["fit", "--config=demo.yaml"]
    with pytest.raises(SettingsError, match="broken.yaml, line 2, column 1: it is not YAML: "):
        (tmp_path / "broken.yaml").write_text("model: [1, {")
        list(Typed.read(["--config=broken.yaml"]).configs())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no settings in it"),
        (b"just text", "has no settings in it"),
        (b"- a\n- b", "has no settings in it but a list"),
    ],
)
def test_a_file_without_settings_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"--config {file} {message}"):
        list(Typed.read(["fit", "--config", str(file)]).configs())


def test_inline_yaml_is_left_to_the_parser() -> None:
    value = "{trainer: {max_epochs: 1}}"
    assert Typed.read(["fit", "--config", value]).words == ["fit", "--config", value]


def test_a_url_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("run_dir: mine")
    typed = Typed.read(["fit", f"--config=file://{tmp_path}/own.yaml"])
    assert typed.run_dir == "mine" and Path(typed.words[1].removeprefix("--config=")).is_file()
    with pytest.raises(SettingsError, match="nothing.yaml could not be fetched"):
        Typed.read(["fit", f"--config=file://{tmp_path}/nothing.yaml"])


BOMB = "a: &a [x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + above] * 8)}]\n" for above, name in pairwise("abcdefg")
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"run_dir: r\nmodel: [1, 2\ntrainer: {}", "line 3, column 8: it is not YAML: .*expected ',' or ']'"),
        (
            b"trainer:\n\tmax_epochs: 1",
            "line 2, column 1: .* a line begins with a tab; indent with",
        ),
        ("run_dir: r".encode("utf-16"), "line 1, column 1: this is not text in UTF-8, it is UTF-16"),
        (b"run_dir: r\nmodel: caf\xe9", "line 2, column 11: this is not text in UTF-8, a byte is 0xe9"),
        (b"run_dir: a\0b", r"line 1, column 11: it is not YAML: a text cannot contain the character U\+0000"),
        (b"\x89PNG\r\n", "line 1, column 1: this is not text in UTF-8"),
        (
            b"run_dir: a\nrun_dir: b",
            "line 2, column 1: .* the key 'run_dir' appears twice, first in line 1",
        ),
        (b"a: {b: [{c: 1, c: 2}]}", "line 1, column 16: it is not YAML: the key 'c' appears twice"),
        (b"run_dir: a\n---\nrun_dir: b", "line 2, column 1: it is not YAML: expected a single document"),
        (b"run_dir: !!python/name:os.system x", "line 1, column 10: it is not YAML: could not determine a constructor"),
        (BOMB.encode(), "line 1, column 1: it is not YAML: found more than 50,000 values"),
    ],
)
def test_an_error_in_yaml_names_its_place(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"--config {file}, {message}"):
        list(Typed.read(["fit", "--config", str(file)]).configs())


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes("run_dir: mine".encode("utf-8-sig"))
    assert Typed.read(["fit", "--config", str(file)]).run_dir == "mine"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("demo", "demo.yaml"),
        ("configs/data/digits_lt.yml", "data/digits_lt.yaml"),
        ("digits_lt.yaml", "data/digits_lt.yaml"),
    ],
)
def test_a_configuration_that_is_not_there_is_one_message(name: str, near: str) -> None:
    with pytest.raises(
        MissingFileError, match=f"--config is {name}, and there is no such file\n  Did you mean: {near}"
    ):
        Typed.read(["fit", "--config", name])


def test_a_name_that_nothing_comes_near() -> None:
    with pytest.raises(MissingFileError, match="no such file; `tailmatch configs` lists all there are$"):
        Typed.read(["fit", "--config", "zzzzzz"])
