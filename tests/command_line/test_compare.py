"""The command: tables of made-up runs, what it refuses, and what it says about strange folders."""

import csv
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from tailmatch.command_line.compare import compare, main
from tailmatch.command_line.compare import write as write_table
from tailmatch.command_line.comparison.across import across
from tailmatch.command_line.comparison.table import SHARES, Table
from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.lightning_modules.metrics import METRICS
from tests.command_line.made_up_runs import CLASSES, change, config, facts, make_cell, make_run, write
from tests.test_import import loaded_after

STUDY = {
    "title": "A study",
    "axes": {"method": {"B": {}, "A": {}}, "unlabeled": {"uniform": {}, "reversed": {}}},
    "published": [
        {
            "source": "Kim et al. 2020, table 1",
            "metric": "balanced_accuracy",
            "unit": "percent",
            "rows": [{"where": {"method": "A", "unlabeled": "uniform"}, "mean": 68.5, "std": 0.9}],
        },
        {"source": "Kim et al. 2020, table 1", "metric": "gm_recall", "rows": [{"where": {"method": "A"}, "mean": 1}]},
    ],
}


def table_of(*places: Path, metrics: tuple[str, ...] = (), **options: Any) -> Table:
    asked: dict[str, Any] = {"source": None, "per_class": False, "force": False} | options
    return compare(places, metrics, **asked)[0]


def refused(*places: Path, **options: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        table_of(*places, **options)
    return str(caught.value)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods over three seeds."""
    for place, method in enumerate(("FixMatch", "MixMatch")):
        for seed in range(3):
            folder = tmp_path / "runs" / f"{method}-{seed}"
            make_run(folder, config(method, seed), 0.6 + 0.1 * place + 0.01 * seed**2)
    return tmp_path / "runs"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A sweep with two axes and two seeds."""
    out = tmp_path / "study"
    for place, method in enumerate("AB"):
        for unlabeled in ("uniform", "reversed"):
            for seed in range(2):
                levels = {"method": method, "unlabeled": unlabeled}
                make_cell(out, levels, seed, 0.6 + 0.1 * place + 0.02 * seed)
    (out / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False), encoding="utf-8")
    (out / "figures").mkdir()
    return out


def test_a_row_is_mean_and_sample_deviation_over_seeds(runs: Path) -> None:
    table = table_of(runs)
    assert table.titles == ["method"] and [row.values for row in table.rows] == [("FixMatch",), ("MixMatch",)]
    assert table.metrics == ["balanced_accuracy", "top1", "macro_f1", "many", "medium", "few"]
    values = [0.6, 0.61, 0.64]
    cell = table.rows[0].cells["balanced_accuracy"]
    assert cell.mean == pytest.approx(statistics.mean(values)) and cell.std == pytest.approx(statistics.stdev(values))
    assert cell.n == 3 and table.rows[0].seeds == "3"
    assert "Best checkpoint by val/balanced_accuracy, on 1,200 test images of Digits." in table.caption
    assert table_of(*sorted(runs.iterdir()), runs).rows == table.rows  # each run once


def test_shares_are_the_metrics_that_are_shares() -> None:
    assert {*METRICS} - {"loss"} == SHARES


def test_any_metric_and_source(runs: Path) -> None:
    assert table_of(runs, metrics=("tail", "test/loss", "head")).metrics == ["few", "loss", "many"]
    of_fit = table_of(runs, metrics=("val/few", "train/loss"))
    assert of_fit.metrics == ["few", "train/loss"] and of_fit.caption[1].startswith("Last validation, on validation")
    assert of_fit.rows[0].cells["train/loss"].mean == pytest.approx(1 / 5)
    best = table_of(runs, source="best_validation").rows[0].cells["balanced_accuracy"].mean
    assert best == pytest.approx(statistics.mean([0.6, 0.61, 0.64]) * (1 - math.exp(-5)))
    for folder in runs.iterdir():
        summary = {"evaluations": 20, "metrics": {"top1": {"mean": 0.5, "std": 0.1}}}
        write(folder / "last_evaluations.json", summary)
    assert table_of(runs, source="last_evaluations").caption[1].startswith("Mean of the last 20 evaluations")
    assert "no run has it; there are balanced_accuracy," in refused(runs, metrics=("acuracy",))
    assert "val/few is no metric of --by test" in refused(runs, metrics=("val/few",), source="test")
    assert "--per_class needs" in refused(runs, source="last_validation", per_class=True)


def test_cells_have_the_axes_as_columns_and_published_numbers_beside(study: Path) -> None:
    table = table_of(study)
    assert table.titles == ["method", "unlabeled"]
    measured = [("B", "uniform"), ("B", "reversed"), ("A", "uniform"), ("A", "uniform"), ("A", "reversed")]
    assert [row.values for row in table.rows] == measured  # levels in the order of the study
    published = table.rows[3]
    assert published.published == 1 and published.cells["balanced_accuracy"].mean == pytest.approx(0.685)
    assert "[1] Published, not measured here: Kim et al. 2020, table 1." in table.legend()
    assert any("published gm_recall, too" in note for note in table.notes)
    with_both = table_of(study, metrics=("balanced_accuracy", "top1"))
    assert with_both.rows[3].seeds == "" and with_both.head_cells(with_both.rows[3])[-1] == "published [1]"
    assert table_of(*sorted(study.iterdir())).rows == table.rows  # what `study/*` names


def test_cells_that_are_not_shown_or_have_failed_are_no_rows(study: Path) -> None:
    change(study / "A-uniform-0" / "cell.json", shown=False)
    change(study / "A-uniform-1" / "cell.json", failed={"command": "fit"})
    (study / "failed").mkdir()
    write(study / "failed" / "cell.json", {"levels": {}, "failed": {"message": "no such option"}})
    table, lines = compare([study], (), None, False, False)
    assert [row.values for row in table.rows if row.results] == [("B", "uniform"), ("B", "reversed"), ("A", "reversed")]
    assert lines == [
        f"left out: {study / 'A-uniform-1'} has failed; see {study / 'A-uniform-1' / 'cell.log'}",
        f"left out: {study / 'failed'} has failed: no such option",
    ]
    assert "All rows: unlabeled reversed." in table_of(*study.glob("*-reversed-*")).caption


def test_a_part_of_a_study_is_laid_out_by_an_axis_of_which_it_has_one_level(study: Path) -> None:
    for name, rows in (("*-reversed-*", ["B", "A"]), ("A-reversed-*", ["A"])):
        part = sorted(study.glob(name))
        table = across(compare(part, (), None, False, False, "unlabeled")[0], "unlabeled")
        assert (table.titles, table.metrics[:1]) == (["method"], ["reversed"])
        assert [row.values for row in table.rows if row.results] == [(row,) for row in rows]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda run: change(run / "run.json", digests=facts(0)["digests"] | {"split": "other"}),
            "split of seed 0: digest",
        ),
        (
            lambda run: change(run / "run.json", digests=facts(0)["digests"] | {"test": "other"}),
            "test images: 1200 images",
        ),
        (lambda run: change(run / "test_metrics.json", recall=dict.fromkeys("abcdef", 0.1)), "class names: "),
        (lambda run: change(run / "test_metrics.json", checkpoint="a/last.ckpt"), "evaluation: last checkpoint in"),
        (lambda run: change(run / "run.json", finished=False, steps=60), "training: unfinished at step 60 in"),
        (
            lambda run: (
                change(run / "run.json", classes={"number": 2, "digest": "d"}),
                change(run / "test_metrics.json", recall={"a": 1.0, "b": 1.0}),
            ),
            "number of classes: 2 in",
        ),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs: Path, spoil: Any, message: str) -> None:
    spoil(runs / "FixMatch-0")
    said = refused(runs)
    assert said.startswith("these runs cannot be compared in one table:\n") and "--force" in said
    assert message in said and str(runs / "FixMatch-0") in said and "and 1 more" not in said
    forced = table_of(runs, force=True)
    assert (
        forced.legend()[0].startswith("Compared by --force, although the runs differ: ")
        and message in forced.legend()[0]
    )


def test_a_table_of_unfinished_runs_says_so(runs: Path) -> None:
    for folder in runs.iterdir():
        change(folder / "run.json", finished=False)
    assert table_of(runs).notes[0].startswith(f"Not trained to the end: {runs / 'FixMatch-0'}, ")
    change(runs / "FixMatch-0" / "run.json", steps=60)
    assert "training: unfinished at step 60 in" in refused(runs)


def test_a_choice_on_the_test_images_is_another_evaluation(tmp_path: Path) -> None:
    make_run(tmp_path / "a", config())
    make_run(tmp_path / "b", config("MixMatch", data={"validate_on_test": True}))
    assert f"chosen on: validation images in {tmp_path / 'a'}; test images in {tmp_path / 'b'}" in refused(tmp_path)
    change(tmp_path / "a" / "test_metrics.json", checkpoint="a/checkpoints/best-few.ckpt")
    assert f"best by: few in {tmp_path / 'a'}; val/balanced_accuracy in" in refused(tmp_path)
    for name in "ab":
        change(tmp_path / name / "test_metrics.json", checkpoint="last.ckpt")
    assert table_of(tmp_path).caption[1] == "Last checkpoint, on 1,200 test images of Digits."


def test_test_images_that_a_seed_draws_are_compared_within_the_seed(tmp_path: Path) -> None:
    drawn = {"validation": True, "test": True}
    for method in ("FixMatch", "MixMatch"):
        for seed in range(2):
            digests = facts(seed)["digests"] | {"test": f"test{seed}"}
            make_run(tmp_path / f"{method}-{seed}", config(method, seed), drawn=drawn, digests=digests)
    assert len(table_of(tmp_path).rows) == 2
    change(tmp_path / "FixMatch-1" / "run.json", digests=facts(1)["digests"] | {"test": "other"})
    assert "test images of seed 1: " in refused(tmp_path)


def test_runs_without_facts_are_compared_by_their_settings(runs: Path) -> None:
    for folder in runs.iterdir():
        (folder / "run.json").unlink()
    assert len(table_of(runs, per_class=True).class_names) == len(CLASSES)
    settings = config("MixMatch", 2, data={"test_holdout": 0.5})
    (runs / "MixMatch-2" / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert "data: Digits, test_holdout 0.5 in" in refused(runs)


def test_a_run_of_python_needs_no_configuration(tmp_path: Path) -> None:
    for name in ("mine", "yours"):
        make_run(tmp_path / name, config())
        for file in ("config.yaml", "run.json"):
            (tmp_path / name / file).unlink()
    table = table_of(tmp_path)
    assert table.titles == ["method"] and [row.values for row in table.rows] == [("mine",), ("yours",)]
    make_run(tmp_path / "other", config())
    assert [row.values for row in table_of(tmp_path).rows] == [("mine",), ("FixMatch",), ("yours",)]


def test_two_folders_of_one_setting_and_seed_are_named(runs: Path) -> None:
    make_run(runs / "again", config("FixMatch", 1))
    said = refused(runs)
    assert f"the same settings and seed: FixMatch, seed 1 in {runs / 'FixMatch-1'}, {runs / 'again'}" in said
    assert [row.seeds for row in table_of(runs, force=True).rows] == ["4", "3"]


def test_cells_of_two_studies_do_not_mix(study: Path) -> None:
    levels = {"method": "A", "unlabeled": "uniform"}
    folder = make_cell(study / "more", levels, 5, 0.7)
    settings = config(seed=5, data={"unlabeled_reverse": False})
    settings["trainer"]["max_epochs"] = 99
    (folder / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert "trainer.max_epochs of A, uniform: 99 in" in refused(study, study / "more")


def test_damaged_runs_are_named_and_the_others_compared(runs: Path) -> None:
    (runs / "FixMatch-0" / "test_metrics.json").write_text("{", encoding="utf-8")
    (runs / "FixMatch-1" / "config.yaml").write_text("a: [", encoding="utf-8")
    change(runs / "MixMatch-0" / "test_metrics.json", metrics={"top1": "high"})
    write(runs / "MixMatch-1" / "run.json", [1])
    (runs / "MixMatch-2" / "metrics.csv").write_bytes(b"\xff\x00,")
    make_run(runs / "deep", config())
    (runs / "deep" / "config.yaml").write_text("[" * 100_000, encoding="utf-8")  # the loader in C would crash
    make_run(runs / "expands", config())
    lists = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (runs / "expands" / "config.yaml").write_text("\n".join(["a0: &a0 [x]", *lists, "model: *a8"]), encoding="utf-8")
    table, lines = compare([runs], (), None, False, False)
    assert [row.seeds for row in table.rows] == ["1", "1"] and len(lines) == 6
    for line, file in zip(lines, ("FixMatch-0/test_metrics.json", "FixMatch-1/config.yaml"), strict=False):
        assert line.startswith("left out: ") and str(runs / file) in line


def test_strange_folders_get_one_message(tmp_path: Path, runs: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "there is no run to compare" in refused(tmp_path / "empty")
    with pytest.raises(MissingFileError, match="there is no such folder"):
        table_of(tmp_path / "missing")
    make_run(tmp_path / "untested", config(), checkpoint=None, curve=0)
    assert "there is nothing to compare: no run has test_metrics.json" in refused(tmp_path / "untested")
    _, lines = compare([runs, tmp_path / "untested", tmp_path / "empty"], (), None, False, False)
    assert len(lines) == 2 and "has no run in it" in lines[0] and "tailmatch test --run_dir" in lines[1]
    assert [row.values for row in table_of(runs / "FixMatch-0").rows] == [("FixMatch",)]


def test_what_is_no_number_is_left_out_of_the_mean_and_named(runs: Path) -> None:
    content = json.loads((runs / "FixMatch-0" / "test_metrics.json").read_text())["metrics"]
    change(runs / "FixMatch-0" / "test_metrics.json", metrics=content | {"top1": math.nan})
    change(runs / "FixMatch-1" / "test_metrics.json", metrics={"balanced_accuracy": 0.5})
    table = table_of(runs)
    assert [table.rows[0].cells[name].n for name in ("balanced_accuracy", "top1", "few")] == [3, 1, 2]
    [note] = [note for note in table.notes if note.startswith("top1")]
    assert f"{runs / 'FixMatch-0'} (nan), {runs / 'FixMatch-1'} (missing)" in note


def test_values_of_other_kinds_are_not_known_and_end_nothing(runs: Path, tmp_path: Path) -> None:
    for place, folder in enumerate(sorted(runs.iterdir())):
        numbers = {"balanced_accuracy": 1e308, "top1": -(10**400), "few": 0.5}
        change(folder / "test_metrics.json", metrics=numbers, step=True)
        odd = {"images": {"test": "many"}, "digests": {"pool": [], "test": {"a": 1}}, "steps_per_second": 10**400}
        change(folder / "run.json", class_counts=["a"], device={}, git=[1], finished="no", steps=[place], **odd)
        (folder / "metrics.csv").write_text("step,epoch,val/few\n1,1,1e308\n2,2,0.5\n", encoding="utf-8")
    files = [tmp_path / f"odd{ending}" for ending in (".md", ".csv", ".tex", ".html")]
    main([str(runs), "--force", "--metrics", "few", "balanced_accuracy", "top1", "--output", *map(str, files)])
    text = files[0].read_text(encoding="utf-8")
    assert "50.00 ± 0.00" in text and "is left out of the mean where it is no number" in text and "(-inf)" in text


def test_names_that_utf_8_cannot_hold_are_escapes_in_a_file(tmp_path: Path) -> None:
    write_table(Table(["a\ud800"], ["top1"], []), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8").startswith(r"a\ud800,seeds")


def test_a_file_of_a_run_is_no_output(runs: Path) -> None:
    file = runs / "FixMatch-0" / "metrics.csv"
    before = file.read_bytes()
    with pytest.raises(SettingsError, match="which is a file of a run; name another one"):
        main([str(runs), "--output", str(file), "--overwrite", "true"])
    assert file.read_bytes() == before


def test_files_are_written_beside_the_table_and_not_over_others(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"table{ending}" for ending in (".md", ".csv", ".tex", ".html")]
    main([str(runs), "--per_class", "--output", *map(str, files)])
    shown = capsys.readouterr().out
    assert "61.67 ± 2.08" in shown and all(f"written: {file}" in shown for file in files)
    assert all("61.67" in file.read_text(encoding="utf-8") for file in files if file.suffix != ".csv")
    [row, _] = csv.DictReader(files[1].read_text(encoding="utf-8").splitlines())
    assert float(row["balanced_accuracy/mean"]) == pytest.approx(statistics.mean([0.6, 0.61, 0.64]))
    assert row["recall/cat/n"] == "3" and row["source"] == "measured"
    with pytest.raises(SettingsError, match="exists"):
        main([str(runs), "--output", str(files[0])])
    main([str(runs), "--metrics", "top1", "--output", str(files[0]), "--overwrite", "true"])
    assert "balanced" not in files[0].read_text(encoding="utf-8").splitlines()[4]
    with pytest.raises(SettingsError, match="must end with .md"):
        main([str(runs), "--output", str(tmp_path / "table.xlsx")])


def test_two_hundred_cells_take_no_five_seconds_and_no_torch(tmp_path: Path) -> None:
    for method in range(20):
        for unlabeled in ("uniform", "reversed"):
            for seed in range(5):
                make_cell(tmp_path, {"method": f"m{method}", "unlabeled": unlabeled}, seed, 0.5 + 0.01 * method)
    code = f"""
import time
began = time.monotonic()
from tailmatch.cli import main
main(["compare", {str(tmp_path)!r}, "--per_class", "--output", {str(tmp_path / "a.html")!r}])
assert time.monotonic() - began < 5
"""
    assert loaded_after(code, ("torch", "numpy", "pytorch_lightning")) == []


def test_published_numbers_in_another_form_are_refused(study: Path) -> None:
    for published, message in (
        ([{"metric": "top1"}], "must name source and metric"),
        ([{"source": "a", "metric": "top1", "unit": "points", "rows": []}], "unit is points of a"),
        ([{"source": "a", "metric": "top1", "rows": [{"mean": 1}]}], "a published row of a"),
        ([{"source": "a", "metric": "top1", "row": []}], "published of a in"),
        ([{"source": "a", "metric": "top1", "rows": [{"where": {}, "mean": 1, "sdt": 1}]}], "has sdt; it may have"),
        ({"source": "a"}, "must be a list of tables"),
        ([{"source": "a", "metric": "top1", "unit": ["share"]}], "unit is ['share'] of a"),
        ([{"source": "a", "metric": "top1", "rows": 1}], "rows is 1 of a in"),
    ):
        (study / "study.yaml").write_text(yaml.safe_dump(STUDY | {"published": published}), encoding="utf-8")
        assert message in refused(study)
