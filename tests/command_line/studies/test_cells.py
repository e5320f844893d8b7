"""The cells of a study, and their command lines."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.cells import cells_of, chosen_cells, with_needed
from tailmatch.command_line.studies.reading import read_study
from tailmatch.datamodules.arguments import SettingsError

STUDY: dict[str, Any] = {
    "configs": ["demo.yaml"],
    "trainer": {"max_epochs": 3},
    "options": {"model.ema_decay": 0.9},
    "axes": {
        "method": {
            "teacher": {"shown": False, "commands": ["fit", "predict --ckpt_path best --output ${run}/a.npz"]},
            "student": {
                "needs": {"labels": {"method": "teacher"}},
                "configs": "methods/self_training.yaml",
                "data": {"init_args": {"pseudo_labels": "${labels}/a.npz"}},
            },
        },
        "data": {"all": {}, "few labels": {"options": {"data.class_counts.labeled_max": 6, "data.seed": None}}},
    },
    "combinations": [{"where": {"method": "student", "data": "few labels"}, "trainer": {"max_epochs": 5}}],
    "seeds": [4, 7],
}


def cells(path: Path, extra: tuple[str, ...] = (), **changes: Any) -> list[Cell]:
    file = path / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return cells_of(read_study(file), extra)


def test_there_is_a_cell_for_each_combination_and_seed(tmp_path: Path) -> None:
    found = cells(tmp_path)
    assert [cell.name for cell in found[:3]] == ["teacher-all-seed4", "teacher-all-seed7", "teacher-few_labels-seed4"]
    assert len(found) == 8 and len({cell.digest for cell in found}) == 8
    assert [cell.shown for cell in found] == [False] * 4 + [True] * 4
    left = cells(tmp_path, exclude=[{"data": "few labels", "method": "student"}])
    assert len(left) == 6
    assert [str(cell) for cell in chosen_cells(found, {"data": ("all",)}, [7])] == [
        "teacher, all, seed 7",
        "student, all, seed 7",
    ]


def test_a_command_line_has_the_settings_in_the_order_of_the_study(tmp_path: Path) -> None:
    student = cells(tmp_path, ("--data.root=here",))[7]
    out = tmp_path / "out"
    student.write_settings(out)
    written = out / "student-few_labels-seed7" / "settings"
    assert student.words("fit", out) == [
        "fit", "--config=demo.yaml", f"--config={written}/1.yaml", "--config=methods/self_training.yaml",
        f"--config={written}/2.yaml", f"--config={written}/4.yaml", "--model.ema_decay=0.9",
        "--data.class_counts.labeled_max=6", "--data.seed=null", "--data.root=here", "--seed_everything=7",
        "--ckpt_path=auto", f"--run_dir={out}/student-few_labels-seed7",
    ]  # fmt: skip
    assert student.words("test --ckpt_path best", out) == [
        "test",
        "--ckpt_path",
        "best",
        f"--run_dir={out}/student-few_labels-seed7",
    ]
    assert sorted(file.name for file in written.iterdir()) == ["1.yaml", "2.yaml", "4.yaml"]
    labels = yaml.safe_load((written / "2.yaml").read_text())["data"]["init_args"]["pseudo_labels"]
    assert labels == f"{out}/teacher-few_labels-seed7/a.npz"
    teacher = cells(tmp_path)[0]
    assert teacher.words(teacher.commands[1], out)[-3:] == [
        f"{out}/teacher-all-seed4/a.npz",
        "--overwrite=true",
        f"--run_dir={out}/teacher-all-seed4",
    ]


def test_what_a_cell_needs_comes_before_it(tmp_path: Path) -> None:
    found = cells(tmp_path)
    student = found[5]
    assert student.needs == {"labels": "teacher-all-seed7"}
    assert [cell.name for cell in with_needed([student, found[0]], found)] == [
        "teacher-all-seed7",
        "student-all-seed7",
        "teacher-all-seed4",
    ]


def test_a_digest_follows_from_all_that_the_cell_depends_on(tmp_path: Path) -> None:
    teacher, student = (cells(tmp_path)[number] for number in (0, 4))
    again = cells(tmp_path, title="another title")
    assert (again[0].digest, again[4].digest) == (teacher.digest, student.digest)
    axes = {**STUDY["axes"], "method": {**STUDY["axes"]["method"], "teacher": {"trainer": {"max_epochs": 9}}}}
    changed = cells(tmp_path, axes=axes)
    assert changed[0].digest != teacher.digest and changed[4].digest != student.digest
    assert cells(tmp_path, ("--data.seed=1",))[0].digest != teacher.digest


CIRCLE = {"a": {"x": {"needs": {"n": {"a": "y"}}}, "y": {"needs": {"n": {"a": "x"}}}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"a": {"x y": {}, "x+y": {}}}}, "x y, seed 4 and x.y, seed 4 would have the same folder, x_y-seed4"),
        ({"axes": {"a": {"x": {}, "X": {}}}}, "would have the same folder"),
        ({"exclude": [{"data": ["all", "few labels"]}]}, "`exclude` leaves no combination"),
        ({"exclude": [{"method": "teacher"}]}, "student: needs teacher, all, which `exclude` leaves out"),
        ({"axes": {"a": {"x": {"needs": {"n": {"a": "z"}}}}}}, "x: needs has a: z, and there is no such level"),
        ({"axes": CIRCLE}, "x-seed4 needs y-seed4 needs x-seed4"),
        ({"trainer": {"default_root_dir": "${there}"}}, r"\$\{there\} stands for nothing; there are \$\{run\}"),
        ({"commands": ["fit", "predict --output ${a}/b"]}, r"\$\{a\} stands for nothing"),
        ({"seeds": 60_000}, "240,000 trainings, and a study has at most 100,000"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        cells(tmp_path, **{"combinations": [], "commands": None, **changes})


def test_long_names_and_other_scripts_are_names_of_folders(tmp_path: Path) -> None:
    axes = {"a": {"가/나 ../다": {}, "x" * 190: {}, "x" * 191: {}, "...": {}}}
    names = [cell.name for cell in cells(tmp_path, axes=axes, combinations=[], seeds=1)]
    assert names[0] == "가_나_.._다-seed0" and names[3] == "_-seed0"
    assert len(set(names)) == 4 and all(len(name.encode()) <= 150 and name.endswith("-seed0") for name in names)


@pytest.mark.parametrize(
    ("command", "replaces"),
    [
        ("select --labels a.npz --output=${run}/b.npz --share 0.5", True),
        ("refine --labels a.npz --output ${run}/b.npz --save_prices mine.json", False),
        ("select --labels ${run}/a.npz --output mine.npz --share 0.5", False),
        ("select --labels a.npz --output ${run}/../mine.npz --share 0.5", False),
        ("export ${run}/checkpoints/best.ckpt ${run}/model.onnx", True),
        ("export ${run}/checkpoints/best.ckpt model.onnx", False),
        ("report ${run}", False),
    ],
)
def test_a_command_replaces_what_an_earlier_attempt_has_written_and_nothing_else(
    command: str, replaces: bool, tmp_path: Path
) -> None:
    cell = cells(tmp_path, axes={}, combinations=[], commands=["fit", command])[0]
    assert ("--overwrite=true" in cell.words(command, Path("out"))) == replaces


def test_cells_that_many_others_need_are_listed_once_and_at_once(tmp_path: Path) -> None:
    levels: dict[str, Any] = {"left 0": {}, "right 0": {}}
    for n in range(1, 40):  # 2^39 ways lead from the last ones to the first
        needs = {"needs": {"a": {"m": f"left {n - 1}"}, "b": {"m": f"right {n - 1}"}}}
        levels |= {f"left {n}": needs, f"right {n}": needs}
    found = cells(tmp_path, axes={"m": levels}, combinations=[], seeds=1)
    assert with_needed(found[-1:], found) == found[:-2] + found[-1:]


def test_settings_may_have_any_keys_that_yaml_has(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("axes: {a: {b: {data: {1: x, y: z, 2020-01-01: 0}}}}")
    assert len(cells_of(read_study(study))) == 1
