"""The file of a study: what it says, and what is wrong with it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailmatch.command_line.studies.reading import levels_where, read_study, study_file
from tailmatch.datamodules.arguments import MissingFileError, SettingsError


def written(path: Path, content: object) -> Path:
    file = path / "study.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    return file


SMALL: dict[str, Any] = {
    "title": "Digits",
    "configs": ["demo.yaml"],
    "axes": {"method": {"FixMatch": {}, "가 나": {"model": {"class_path": "MixMatch"}}}},
}


def test_a_study_has_axes_of_levels_and_seeds(tmp_path: Path) -> None:
    rate = {"option": "model.optimizer.lr", "values": [0.1, 0.01]}
    study = read_study(
        written(
            tmp_path,
            {**SMALL, "axes": {**SMALL["axes"], "rate": rate, "loss": {"a": None, "focal": "losses/focal.yaml"}}},
        )
    )
    assert study.title == "Digits" and study.seeds == (0,) and study.threads is None
    assert [list(levels) for levels in study.axes.values()] == [["FixMatch", "가 나"], ["0.1", "0.01"], ["a", "focal"]]
    assert study.axes["rate"]["0.01"].options == {"model.optimizer.lr": 0.01}
    assert study.axes["loss"]["focal"].configs == ("losses/focal.yaml",)
    assert study.axes["method"]["가 나"].settings == {"model": {"class_path": "MixMatch"}}


def test_what_the_command_line_chooses(tmp_path: Path) -> None:
    study = read_study(
        written(tmp_path, {**SMALL, "seeds": [3, 5], "axes": {**SMALL["axes"], "c": {"a,b": {}, "a": {}}}})
    )
    assert levels_where(["method=FixMatch,가 나", "seed=5"], study) == ({"method": ("FixMatch", "가 나")}, (5,))
    assert levels_where(["c=a,b"], study) == ({"c": ("a,b",)}, None)
    assert levels_where([], study) == ({}, None)
    for words, message in {
        "method": "it must be AXIS=LEVEL",
        "seed=0": "there is no seed 0; the study has 3, 5",
        "metod=FixMatch": "no axis metod\n  Did you mean: method?",
        "method=FixMtch": "no level FixMtch\n  Did you mean: FixMatch?",
    }.items():
        with pytest.raises(SettingsError, match=message.replace("?", r"\?")):
            levels_where([words], study)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("axes: [", "it is not YAML"),
        ("commands: [predict --output ${run}/a.npz]", r"a text with \$\{...\} in a list must be in quotes"),
        ("- a", "is not a study"),
        ({"model": {"class_path": "FixMatch"}}, "is not a study"),
        ({"axis": {}}, "unknown key axis\n  Did you mean: axes?"),
        ({"run_dir": "a"}, "run_dir is given by sweep to each training"),
        ({"options": {"seed_everything": 1}}, "seeds are listed under `seeds`"),
        ({"seeds": 0}, "seeds is 0; it must be a number of seeds, or a list"),
        ({"seeds": [1, 1]}, r"seeds is \[1, 1\]"),
        ({"threads": 0}, "threads is 0; it must be an integer above 0"),
        ({"configs": ["demo.yml"]}, r"configs has demo.yml, and there is no such file\n  Did you mean: demo.yaml"),
        ({"commands": ["train"]}, "commands has 'train'; it must begin with one of fit"),
        ({"commands": []}, "commands is empty"),
        ({"commands": ["fit --trainr.max_epochs 1"]}, "fit has no option --trainr.max_epochs\n  Did you"),
        ({"commands": ["export --chekpoint last"]}, "export has no option --chekpoint"),
        ({"commands": ["fit --data.root 'my images"]}, "in which a quote is not closed"),
        ({"compare": ["--across"]}, r"compare is \['--across'\]; it must be options of"),
        ({"compare": "'a"}, "compare is \"'a\": No closing quotation"),
        ({"shown": 1}, "shown is 1; it must be true or false"),
        ({"axes": {"a": {}}}, "axis a has no level"),
        ({"axes": {"a": ["x", "y"]}}, r"axis a is \['x', 'y'\]; it must be a mapping"),
        ({"axes": {"a": {True: {}}}}, "a name is true to YAML; write it in quotes"),
        ({"axes": {"a": {"x": {"modle": {}}}}}, "axis a, x: unknown key modle\n  Did you mean: model?"),
        ({"axes": {"a": {"optn": "model.lr", "values": [1]}}}, "axis a has optn, values; it must have option"),
        ({"axes": {"a": {"option": 3, "values": [1]}}}, "option is 3; it must be one of the command line"),
        ({"exclude": [{"method": "Fixmatch"}]}, "axis method has no level Fixmatch\n  Did you mean: FixMatch?"),
        ({"combinations": [{"model": {}}]}, "combination 1: where is empty; it must be a mapping"),
        ({"combinations": [{"where": {"x": 1}}]}, "combination 1: there is no axis x"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(change: object, message: str, tmp_path: Path) -> None:
    study = {**SMALL, **change} if isinstance(change, dict) and "class_path" not in str(change) else change
    with pytest.raises(SettingsError, match=message.replace("?", r"\?")):
        read_study(written(tmp_path, study))


def test_a_study_is_a_file_or_one_of_the_package(tmp_path: Path) -> None:
    assert study_file("studies/demo.yaml").is_file()
    assert study_file(str(written(tmp_path, SMALL))) == tmp_path / "study.yaml"
    with pytest.raises(MissingFileError, match=r"^the study is studies/dmo.yaml, and there is no such file\n  Did you"):
        study_file("studies/dmo.yaml")
