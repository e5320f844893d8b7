"""The facts of a fit: written at any time, continued by a resume, and the same for the same data only."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel

from tailmatch.callbacks.reports.run_facts import RunFacts, data_facts, git_state, timed
from tailmatch.datamodules import Digits
from tailmatch.datamodules.images import ImageRows, Images
from tailmatch.datamodules.splitting.digests import rows_digest


class Failing(Callback):
    """A callback that fails in a step, and keeps what the file had before it."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.before: dict[str, Any] = {}

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        """Fail."""
        if trainer.global_step == self.step:
            self.before = facts(Path(trainer.default_root_dir))
            raise RuntimeError("on purpose")


def facts(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content


def fit(folder: Path, epochs: int, *callbacks: Callback, **options: Any) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        max_epochs=epochs,
        limit_train_batches=2,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RunFacts(), *callbacks],
    )
    trainer.fit(BoringModel(), **options)
    return trainer


def test_a_fit_says_how_far_it_is_and_a_resume_goes_on_counting(tmp_path: Path) -> None:
    failing = Failing(4)
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, 3, failing)
    assert [failing.before[name] for name in ("finished", "steps")] == [False, 4]  # of the second validation
    stopped = facts(tmp_path)
    assert [stopped[name] for name in ("finished", "steps", "timed_steps", "processes")] == [False, 4, 4, 1]
    (tmp_path / "run.json").write_text(json.dumps(stopped | {"seconds": 1000.0, "begun": "then"}), encoding="utf-8")
    fit(tmp_path, 2).save_checkpoint(tmp_path / "four.ckpt")
    assert facts(tmp_path)["begun"] != "then" and facts(tmp_path)["seconds"] < 900  # another run
    (tmp_path / "run.json").write_text(json.dumps(stopped | {"seconds": 1000.0, "begun": "then"}), encoding="utf-8")
    fit(tmp_path, 3, ckpt_path=tmp_path / "four.ckpt")
    end = facts(tmp_path)
    assert [end[name] for name in ("finished", "steps", "timed_steps", "begun")] == [True, 6, 6, "then"]
    assert 1000 <= end["seconds"] < 1100 and end["steps_per_second"] == pytest.approx(6 / end["seconds"], abs=1e-4)


def test_a_fit_that_fails_before_its_first_step_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, 1, Failing(0))
    assert not (tmp_path / "run.json").exists()


def test_steps_that_a_kill_has_lost_are_nottimed() -> None:
    before = {"seconds": 60.0, "timed_steps": 300, "steps": 400}
    assert timed(before, 400) == (60, 300) and timed(before, 200) == (30, 150) and timed(before, 450) == (60, 300)
    assert timed({}, 7) == timed({"seconds": "x", "timed_steps": 1, "steps": 1}, 7) == (0, 0)


def test_the_same_data_have_the_same_digests() -> None:
    def of(**arguments: Any) -> dict[str, Any]:
        data = Digits(**arguments)
        data.setup("fit")
        return data_facts(data)

    first = of(seed=0)
    assert first["split_seed"] == 0 and first["drawn"] == {"validation": True, "test": True}
    assert first["images"]["test"] > 0 and sum(first["class_counts"]) == first["images"]["labeled"]
    assert of(seed=0, labeled_batch_size=8) == first
    other = of(seed=1)
    assert other["classes"] == first["classes"] and other["digests"]["pool"] == first["digests"]["pool"]
    assert all(other["digests"][name] != first["digests"][name] for name in ("split", "validation", "test"))
    on_test = of(seed=0, validate_on_test=True)
    assert on_test["digests"]["validation"] == on_test["digests"]["test"]


def test_images_of_files_are_told_by_their_keys() -> None:
    def digest(keys: tuple[str, ...] | None, rows: list[int], classes: list[int]) -> str:
        pixels = torch.zeros(len(classes), 3, 1, 1, dtype=torch.uint8)
        return rows_digest(ImageRows(Images(pixels, torch.tensor(classes), keys), torch.tensor(rows)))

    first = digest(("a", "b\udce9"), [0, 1], [0, 1])
    assert digest(("c", "a", "b\udce9"), [1, 2], [1, 0, 1]) == first  # in a larger pool
    assert len({first, digest(("a", "c"), [0, 1], [0, 1]), digest(("a", "b\udce9"), [0, 1], [0, 0])}) == 3
    assert digest(None, [0, 1], [0, 0, 0]) != digest(None, [0, 2], [0, 0, 0])


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(tmp_path) is None

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    (tmp_path / "a.py").write_text("1")
    git("init")
    git("add", "a.py")
    git("commit", "-m", "a")
    clean = git_state(tmp_path)
    assert clean is not None and len(clean["revision"]) == 40 and clean["changed"] is False
    (tmp_path / "a.py").write_text("2")
    assert git_state(tmp_path) == {"revision": clean["revision"], "changed": True}
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None
