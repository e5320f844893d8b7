"""`tailmatch report`, and the report that a test leaves."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.callbacks.reports.html.pages import Page
from tests.typed import call_here, method, tailmatch

FIT = ["fit", *method("FixMatch"), "--data.image_size=8", "--data.steps_per_epoch=2", "--trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was tested."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    tailmatch(*FIT, "--trainer.callbacks=PseudoLabelMonitor", f"--run_dir={folder}")
    return folder


def page_of(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def contents(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_report_changes_nothing_else_in_the_run(run: Path) -> None:
    before = contents(run)
    out = tailmatch("report", str(run), "--unlabeled_images", "40", "--data.eval_batch_size=50")
    assert out.splitlines()[-1] == f"report: {run / 'report.html'}"
    after = contents(run)
    assert after.keys() - before.keys() == {"report.html", "label_next.csv"}
    assert {name: after[name] for name in before} == before
    page = page_of(run)
    assert {name for name, text in page.sections.items() if "Left out:" in text} == set()
    facts = " ".join(page.sections["run"].split())
    for fact in ("FixMatch", "best.ckpt, epoch 1, step 2", "2 steps, 1 epoch", "PseudoLabelMonitor", "model.network"):
        assert fact in facts, fact


def test_a_test_writes_the_report_unless_it_is_told_not_to(run: Path) -> None:
    report = run / "report.html"
    report.unlink(missing_ok=True)
    words = ["test", f"--run_dir={run}", "--ckpt_path=last", "--trainer.logger=false"]
    assert "report:" not in tailmatch(*words, "--report=false") and not report.exists()
    assert f"report: {report}" in tailmatch(*words) and "400 test images" in page_of(run).sections["result"]


def test_a_run_without_a_checkpoint_has_a_report_of_its_files(run: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "metrics.csv"):
        shutil.copy(run / name, tmp_path / name)
    tailmatch("report", str(tmp_path))
    page = page_of(tmp_path)
    assert "Left out: the run has no checkpoint" in page.sections["result"]
    assert "data.steps_per_epoch" in page.sections["run"] and len(page.tags("svg")) == 3


@pytest.mark.filterwarnings("ignore:.*has no folder train", "ignore:Total length of `list` across ranks is zero")
def test_a_run_without_test_and_validation_images_says_what_to_label_next(tmp_path: Path) -> None:
    for number in range(24):
        file = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8)).save(file)
    data = ["--data=ImageFolder", f"--data.root={tmp_path}/images", "--data.image_size=8"]
    data += ["--data.val_holdout=0", "--data.test_holdout=0", "--data.labeled_batch_size=2"]
    run = tmp_path / "run"
    fit = [word for word in FIT if not word.startswith("--data")]
    tailmatch(*fit, *data, "--data.steps_per_epoch=2", f"--run_dir={run}")
    tailmatch("report", str(run))
    page = page_of(run)
    assert "Left out: the data has no test images, and no validation images" in page.sections["result"]
    assert "unlabeled images were predicted" in page.sections["next"] and (run / "label_next.csv").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}/none"], "no run {folder}/none: there is no such folder"),
        (["{folder}/file"], "{folder}/file is a file; give the folder of the run"),
        (["{folder}"], "{folder} has no run in it: there is no checkpoints/*.ckpt and no config.yaml or"),
        (["{run}", "--ckpt_path=no.ckpt"], "no checkpoint no.ckpt"),
        (["{run}", "--run_dir=x"], "report takes no --run_dir"),
        (["{run}", "--unlabeled_images=many"], "--unlabeled_images"),
        (["{run}", "--trainr.devices=1"], "Did you mean: --trainer?"),
    ],
)
def test_what_is_no_run_is_named(words: list[str], message: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {"folder": tmp_path, "run": run}
    result = call_here("report", *(word.format(**places) for word in words))
    assert result.returncode in (1, 2) and "Traceback" not in result.stderr
    assert message.format(**places) in result.stderr
