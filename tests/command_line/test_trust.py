"""A checkpoint that names code or paths, on the command line: nothing runs, and only what is asked for is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import Namespace
from PIL import Image

from tailmatch.command_line.settings_of_checkpoint import files_of, needed_to_evaluate
from tailmatch.command_line.typed import Typed
from tests.stranger import MODULE, Watch, argument, code, payloads, with_settings, writes
from tests.typed import Result, call_here, method, tailmatch

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"]
FIT = ["fit", *method("Supervised"), *QUIET, "--trainer.max_epochs=1", "--data.steps_per_epoch=2"]
PHOTOS = ["--data=UnlabeledImages", "--data.root=photos"]

COMMANDS: dict[str, list[str]] = {
    "test": ["test", "--ckpt_path={}", *QUIET],
    "validate": ["validate", "--ckpt_path={}", *QUIET],
    "predict": ["predict", "--ckpt_path={}", "--output=made.npz", *QUIET],
    "predict of a folder": ["predict", "--ckpt_path={}", *PHOTOS, "--output=made.csv", *QUIET],
    "fit": ["fit", "--ckpt_path={}", *QUIET],
    "export": ["export", "{}", "made.pt2"],
    "Ensemble": ["test", "--model=Ensemble", "--model.checkpoints=[{}]", *QUIET],
    "ClassifierRetraining": ["fit", "--data=Digits", "--model=ClassifierRetraining", "--model.checkpoint={}", *QUIET],
}  # fmt: skip
"""Every command that reads a checkpoint which is named."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    tailmatch(*FIT, f"--run_dir={folder}")
    return folder


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """What must not change, beside the working directory with its photos."""
    for folder in ("outside", "here", "here/photos"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save("photos/one.png")
    return Watch(tmp_path / "outside")


def command(name: str, file: Path) -> Result:
    return call_here(*(word.format(file) for word in COMMANDS[name]))


def bad(run: Path, folder: Path, change: Callable[[dict[str, Any]], Any] | str) -> Path:
    return with_settings(folder / "bad.ckpt", run / "checkpoints" / "last.ckpt", change)


def check_refused(result: Result) -> None:
    assert result.returncode in (1, 2) and "Traceback" not in result.stderr, result.stderr
    assert result.stderr.count("tailmatch: error:") == 1 and "bad.ckpt" in result.stderr


def is_read(name: str, payload: str) -> bool:
    """Tell whether a command reads the part of a checkpoint with a payload: a new head takes the network alone."""
    settings: dict[str, Any] = {"model": {"class_path": "", "init_args": {}}}
    if name == "ClassifierRetraining" and payload in code(""):
        code("")[payload](settings)
        return "network" in settings["model"]["init_args"]
    return True


@pytest.mark.parametrize(
    ("name", "payload"), [(name, payload) for name in COMMANDS for payload in payloads("") if is_read(name, payload)]
)
def test_no_command_runs_a_payload(name: str, payload: str, run: Path, watch: Watch, tmp_path: Path) -> None:
    file = payloads(str(watch.called))[payload](tmp_path / "bad.ckpt", run / "checkpoints" / "last.ckpt")
    with watch.nothing_happens():
        check_refused(command(name, file))
    assert not list(Path.cwd().glob("made*"))


@pytest.mark.parametrize("name", ["test", "validate", "predict", "Ensemble"])
def test_data_that_is_code_is_refused(name: str, run: Path, watch: Watch, tmp_path: Path) -> None:
    file = bad(run, tmp_path, lambda settings: settings["data"].update(class_path=f"{MODULE}.make"))
    with watch.nothing_happens():
        check_refused(command(name, file))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("fit", "ClassifierRetraining")])
def test_what_writes_is_not_taken(name: str, run: Path, watch: Watch, tmp_path: Path) -> None:
    def change(settings: dict[str, Any]) -> None:
        settings["trainer"] |= writes(watch.folder)
        settings |= {"overwrite": True, "output": str(watch.folder / "thesis.csv"), "run_dir": str(watch.folder)}
        settings["checkpoint"] = {"class_path": f"{MODULE}.make"}
        settings["trust_checkpoint"] = True
        if name == "predict of a folder":  # its own data are given
            settings["data"] = {"class_path": f"{MODULE}.Part", "init_args": {"cache_dir": str(watch.folder)}}

    file = bad(run, tmp_path, change)
    with watch.nothing_happens():
        result = command(name, file)
    assert result.returncode == 0, result.stderr


def test_with_a_config_too_a_files_data_are_not_imported(run: Path, watch: Watch, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    (tmp_path / "mine.yaml").write_text(content["config"])
    file = bad(run, tmp_path, lambda settings: settings.update(data={"class_path": f"{MODULE}.Part", "init_args": {}}))
    mine = [f"--config={tmp_path / 'mine.yaml'}", f"--ckpt_path={file}", f"--run_dir={tmp_path / 'new'}"]
    with watch.nothing_happens():
        tailmatch("predict", *mine, *PHOTOS, "--data.image_size=16", "--output=made.csv", *QUIET)


def test_of_the_trainer_only_what_computes_is_taken(tmp_path: Path) -> None:
    processes = {"devices": 1000, "num_nodes": 3, "strategy": "ddp_notebook"}
    trainer = {"accelerator": "cpu", "precision": "16-mixed", **processes}
    shift = {"class_path": "callbacks.LogitAdjustment", "init_args": {"tau": 0.5}}
    for listed in ([shift, {"class_path": "tailmatch.callbacks.DARP"}], shift):
        settings = {
            "seed_everything": 3,
            "trainer": trainer | writes(tmp_path) | {"callbacks": listed, "max_epochs": 3},
        }
        kept = needed_to_evaluate(settings, Typed.read(["test"]))
        plain = {"accelerator": "cpu", "precision": "16-mixed"}
        assert kept == {"seed_everything": 3, "trainer": plain | {"callbacks": [shift]}}
    data = {
        "class_path": "datamodules.ImageTable",
        "init_args": {"table": "a.csv", "cache_dir": "b", "n": [{"output": 1}]},
    }
    assert needed_to_evaluate({"data": data}, Typed.read(["test"]))["data"]["init_args"] == {
        "table": "a.csv",
        "n": [{}],
    }
    assert "data" not in needed_to_evaluate({"data": data}, Typed.read(["predict", "--data=UnlabeledTable"]))


def test_nothing_is_downloaded_to_a_place_that_a_file_names(tmp_path: Path, run: Path) -> None:
    def elsewhere(settings: dict[str, Any]) -> None:
        settings["data"] = {"class_path": "datamodules.CIFAR10", "init_args": {"root": str(tmp_path / "outside")}}

    file = bad(run, tmp_path, elsewhere)
    for name in ("test", "Ensemble"):
        result = command(name, file)
        assert f"data that {file} names: CIFAR10" in result.stdout
        assert result.returncode == 1 and result.stderr.count("tailmatch: error:") == 1, result.stderr
        assert f"CIFAR-10 is missing or incomplete in {tmp_path}/outside" in result.stderr
        assert "give the folder yourself with --data.root" in result.stderr
    assert not (tmp_path / "outside").exists()


def test_the_files_of_data_are_listed(tmp_path: Path) -> None:
    arguments = Namespace(root=str(tmp_path), table="", image_size=32, encoding="utf-8", other="x" * 5000, none=None)
    data = Namespace(class_path="tailmatch.datamodules.ImageTable", init_args=arguments)
    assert files_of(data) == f"ImageTable root {tmp_path}"
    assert files_of(Namespace(class_path="tailmatch.datamodules.Digits")) == "Digits"


def test_a_text_in_a_message_imports_nothing(run: Path, watch: Watch, tmp_path: Path) -> None:
    for text in (
        f"module '{MODULE}' has no attribute 'make'",
        f"Option 'a' is not accepted class_path '{MODULE}.make'",
    ):
        file = bad(run, tmp_path, argument("mixup", text))
        with watch.nothing_happens():
            assert command("test", file).returncode in (1, 2)


def test_a_name_in_a_prior_is_not_the_users_word(run: Path, watch: Watch, tmp_path: Path) -> None:
    file = bad(run, tmp_path, code("")["function"])
    Path("prior.json").write_text(f'{{"counts": [1], "class_names": ["{MODULE}.make"]}}')
    darp = ["--trainer.callbacks=DARP", "--trainer.callbacks.target=prior.json"]
    with watch.nothing_happens():
        check_refused(call_here("test", f"--ckpt_path={file}", *darp, *QUIET))


def test_a_fit_goes_on_with_a_file_on_the_users_word_alone(run: Path, watch: Watch, tmp_path: Path) -> None:
    file = run / "checkpoints" / "last.ckpt"
    refused = call_here("fit", f"--ckpt_path={file}", *QUIET)
    assert refused.returncode == 1
    assert f"name its folder too, --run_dir {run}." in refused.stderr and "--trust_checkpoint true" in refused.stderr
    tailmatch("fit", f"--ckpt_path={file}", f"--run_dir={run}", *QUIET)  # it is at its end
    more = [f"--run_dir={tmp_path / 'more'}", "--trainer.max_epochs=2", *QUIET]
    assert call_here("fit", f"--ckpt_path={file}", *more).returncode == 1  # the folder is another
    tailmatch("fit", f"--ckpt_path={file}", "--trust_checkpoint=true", *more)
    assert "trust_checkpoint: false" in (tmp_path / "more" / "config.yaml").read_text()
    tailmatch("fit", f"--ckpt_path={tmp_path / 'more/checkpoints/last.ckpt'}", *more, "--trainer.max_epochs=3")


def test_a_class_of_the_user_is_taken_on_the_users_word(
    run: Path, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(watch.folder / "code")
    file = with_settings(tmp_path / "last.ckpt", run / "checkpoints" / "last.ckpt", code("")["function"])
    refused = call_here("test", f"--ckpt_path={file}", *QUIET)
    assert refused.returncode == 1 and f"{MODULE}.make is no public class" in refused.stderr
    assert not watch.marker.exists()
    tailmatch("test", f"--ckpt_path={file}", f"--model.view={MODULE}.make", *QUIET)
    assert watch.called.exists()
    watch.called.unlink()
    tailmatch("test", f"--ckpt_path={file}", "--trust_checkpoint=true", *QUIET)
    assert watch.called.exists()
    watch.called.unlink()
    tailmatch("export", str(file), str(tmp_path / "made.pt2"), "--trust_checkpoint=true")
    assert watch.called.exists()
    folder = tmp_path / "mine" / "checkpoints"
    folder.mkdir(parents=True)
    file.rename(folder / "last.ckpt")
    watch.called.unlink()
    tailmatch("test", f"--run_dir={tmp_path / 'mine'}", "--ckpt_path=last", *QUIET)
    assert watch.called.exists()


def test_a_run_that_is_named_keeps_all_its_settings(run: Path, tmp_path: Path) -> None:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    settings = yaml.safe_load(content["config"])
    settings["trainer"]["limit_test_batches"] = 1
    settings["trainer"]["callbacks"] = [{"class_path": "pytorch_lightning.callbacks.Timer"}]
    folder = tmp_path / "mine" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(content | {"config": yaml.safe_dump(settings)}, folder / "last.ckpt")
    tailmatch("test", f"--run_dir={folder.parent}", "--ckpt_path=last", *QUIET)
