"""What is refused before a sweep runs anything."""

from pathlib import Path

import pytest
import yaml

from tailmatch.command_line.studies.checks import check_classes, check_extra, check_published, check_title, say_former
from tailmatch.command_line.studies.reading import read_study
from tailmatch.datamodules.arguments import SettingsError


def published(path: Path, where: dict[str, str]) -> Path:
    rows = [{"where": where, "mean": 80}]
    tables = [{"source": "a paper", "metric": "top1", "rows": rows}]
    file = path / "study.yaml"
    file.write_text(yaml.safe_dump({"axes": {"method": {"a": {}}, "rate": {"b": {}}}, "published": tables}))
    return file


def test_a_published_number_of_no_axis_is_refused_before_the_trainings(tmp_path: Path) -> None:
    file = published(tmp_path, {"method": "of others", "rate": "b"})
    check_published(read_study(file), file)  # a paper may have methods that the study does not train
    file = published(tmp_path, {"metod": "a"})
    with pytest.raises(SettingsError, match="names the axis metod; the study has method, rate"):
        check_published(read_study(file), file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dryrun"], r"unrecognized arguments: --dryrun\n  Did you mean: --dry-run\?"),
        (["--job", "2"], r"--job\n  Did you mean: --jobs\?"),
        (["--dat.root=/data"], r"--dat.root\n  Did you mean: --data\?"),
        (["--qqq"], "unrecognized arguments: --qqq$"),
        (["--seed_everything", "3"], "each cell has its own"),
    ],
)
def test_an_unknown_option_is_refused_before_the_trainings(words: list[str], message: str) -> None:
    check_extra(["--data.root", "/data", "--trainer.callbacks+=DARP"])
    with pytest.raises(SettingsError, match=message):
        check_extra(words)


def test_a_class_for_which_the_study_has_no_settings_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("axes: {method: {a: {model: {class_path: FixMatch}}}}")
    study = read_study(file)
    check_classes(["--data", "Digits", "--model.threshold", "0.5", "--data.root=/data"], study)
    for words in (["--model", "MixMatch"], ["--model.class_path=MixMatch"]):
        with pytest.raises(SettingsError, match="MixMatch would leave out the model settings"):
            check_classes(words, study)


def test_a_folder_with_another_study_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: Mine\naxes: {method: {a: {}}}\n")
    out = tmp_path / "out"
    out.mkdir()
    check_title(read_study(file), out)
    (out / "study.yaml").write_text(file.read_text() + "seeds: 2\n")
    check_title(read_study(file), out)
    (out / "study.yaml").write_text("title: Of others\naxes: {method: {a: {}}}\n")
    with pytest.raises(SettingsError, match=r"out holds the study 'Of others', and this one is 'Mine'"):
        check_title(read_study(file), out)


def test_runs_that_the_study_no_longer_has_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a-seed0", "b-seed0", "of-no-sweep"):
        (tmp_path / name).mkdir()
    for name in ("a-seed0", "b-seed0"):
        (tmp_path / name / "cell.json").touch()
    say_former(tmp_path, {"a-seed0", "b-seed0"})
    assert capsys.readouterr().out == ""
    say_former(tmp_path, {"b-seed0"})
    assert capsys.readouterr().out.endswith("holds runs that the study no longer has, and shows them: a-seed0\n")
