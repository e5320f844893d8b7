"""What a command line says about files, before it is parsed."""

from pathlib import Path

import pytest

from tailmatch.command_line.run_folder import check_overlays


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
    check_overlays(line(words, files))


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
    with pytest.raises(ValueError, match=f"has settings of the {part} and comes before the {part} {name} is named"):
        check_overlays(line(words, files))


def line(words: list[str], files: dict[str, str]) -> list[str]:
    """A command line: names of files become `--config FILE`."""
    return [part for word in words for part in (["--config", files[word]] if word in files else [word])]
