"""Every command of the documentation and of the headers of the configurations is built, with what it names."""

import argparse
import importlib
import re
import shutil
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import timm
import torch
from efficientnet_pytorch import EfficientNet
from PIL import Image
from torchvision import models

from tailmatch import cli
from tailmatch.command_line import compare, init, label, refine, report, resume, select, stream, sweep
from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.command_line.plan import Choice, Plan, Source, propose
from tailmatch.command_line.run_config import RunConfig
from tailmatch.command_line.studies import checks
from tailmatch.command_line.studies.cell import Cell
from tailmatch.command_line.studies.cells import cells_of, chosen_cells, with_needed
from tailmatch.command_line.studies.reading import levels_where, read_study, study_file
from tailmatch.command_line.studies.search import trial_cell
from tailmatch.command_line.yaml_text import parse_yaml
from tailmatch.datamodules.files.survey import Survey
from tailmatch.lightning_modules.inference import export
from tests.documented_commands import PAGES, ROOT, Command, commands_of

CPU = ["accelerator=cpu", "devices=1", "strategy=auto", "precision=32-true"]
FILE_OF_RUN = re.compile(r"(runs/[\w/-]+?)/(checkpoints/(?:best|last)\.ckpt|prior\.json|pseudo_labels\.npz)")
PRODUCT = "{}.jpg,Men,Apparel,Topwear,{},{}\n"
PRODUCTS = "image,gender,masterCategory,subCategory,articleType,usage\n" + "".join(
    PRODUCT.format(k, "Shirts" if k % 3 else "Tops", "Casual" if k % 2 else "Formal") for k in range(100)
)
LISTED = "train/a/0.jpg 0 train\ntrain/b/0.jpg 1 train\nval/0.jpg 1 test\n"
FILES = {
    "my-images/images.csv": "image,target\n0.jpg,a\n1.jpg,b\n",
    "products/products.csv": PRODUCTS,
    "imagenet/imagenet_lt.txt": LISTED,
    "inaturalist/inaturalist18.txt": LISTED,
}
FOLDERS = ["my-images/train/a", "my-images/train/b", "imagenet/train/a", "imagenet/train/b"]
FOLDERS += ["my-photos", "photos", "new-photos", "products/images"]


class Built(TailmatchCLI):
    """Parses and builds everything; instead of a training, it writes a checkpoint as a training does."""

    def _run_subcommand(self, subcommand: str) -> None:
        settings = self.config[subcommand]
        if subcommand == "fit":
            self.model.trainer = self.trainer
            checkpoint = {"state_dict": self.model.state_dict()}
            self.model.on_save_checkpoint(checkpoint)
            checkpoint["class_names"] = [str(k) for k in range(self.model.num_classes)]
            checkpoint["image_size"] = [32, 32]
            RunConfig(self._parser("fit"), settings).on_save_checkpoint(self.trainer, self.model, checkpoint)
            stand_in_run(Path(settings.run_dir), checkpoint)


def stand_in_run(run_dir: Path, checkpoint: dict[str, Any]) -> None:
    (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    last, best = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    torch.save(checkpoint, last)
    best.unlink(missing_ok=True)
    best.hardlink_to(last)


def untrained(url: str, **kwargs: object) -> dict[str, torch.Tensor]:
    """What the address would give, with random numbers in it."""
    name = re.search(r"efficientnet-b\d", url)
    return (EfficientNet.from_name(name[0]) if name else models.resnet50()).state_dict()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for commands that name one of which their page does not say how it is made."""
    folder = tmp_path_factory.mktemp("template")
    with mock.patch.object(sys, "argv", ["tailmatch"]), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Built(["fit", "--config=data/cifar10_lt.yaml", "--config=methods/fixmatch.yaml", "--run_dir=run"])
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what commands name: images, tables, photographs."""
    image = Image.new("RGB", (16, 16))
    for folder in FOLDERS:
        (tmp_path / folder).mkdir(parents=True)
        for name in ("0.jpg", "1.jpg"):
            image.save(tmp_path / folder / name)
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tailmatch"])
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", untrained)
    create_model: Any = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained, pretrained_cfg_overlay, **options: create_model(name, **options)
    )
    monkeypatch.setattr(resume, "local_file", lambda name: Path(name.removeprefix("https://example.org/models/")))
    return tmp_path


def provide_runs(words: tuple[str, ...], template: Path) -> None:
    """Make the runs that a command names and that no earlier command of the page has made."""
    text = " ".join(words)
    if words[0] == "fit" and "--ckpt_path" not in words:  # a page may show several ways to make one run
        for run in re.findall(r"--run_dir (\S+)", text):
            shutil.rmtree(run, ignore_errors=True)
    if re.search("--ckpt_path (best|last)", text):
        text += "".join(f" {run}/checkpoints/last.ckpt" for run in re.findall(r"--run_dir (\S+)", text))
    files = [Path(file) for file in re.findall(r"--config (\S+)", text)]
    settings = [(file if file.is_file() else ROOT / "configs" / file).read_text() for file in files]
    text += re.sub("(?m)^#.*", "", " ".join(settings))
    for run, file in FILE_OF_RUN.findall(text):
        if not Path(run, "checkpoints/last.ckpt").exists():
            stand_in_run(Path(run), torch.load(template, weights_only=True))
        if not Path(run, file).exists():
            Path(run, file).touch()
    if "best.ckpt" in text and not Path("best.ckpt").exists():
        Path("best.ckpt").symlink_to(template)


def build(command: Command, page: Path) -> None:
    """Build everything that a command of a page would use."""
    if command.program != "tailmatch":
        parse_only(command)
        if command.program == "benchmarks.lite0_weights":
            torch.save(timm.create_model("tf_efficientnet_lite0", False, {}).state_dict(), command.words[0])
    elif any(word.endswith("help") for word in command.words):
        with pytest.raises(SystemExit, match="0"):
            cli.main(command.words)
    elif command.words[0] in ("fit", "validate", "test", "predict"):
        Built([*command.words, *[f"--trainer.{word}" for word in CPU]])
    elif command.words[0] == "sweep":
        build_study(command.words[1:], page)
    elif command.words[0] == "report":
        asked, others = report.parser().parse_known_args(command.words[1:])
        words = report.words_of_test(asked.run, asked.ckpt_path or "best", asked.unlabeled_images, others)
        Built([*words, *[f"--trainer.{word}" for word in CPU]])
    elif command.words[0] in (
        parsed := {"compare": compare, "label": label, "refine": refine, "select": select, "stream": stream}
    ):
        parsed[command.words[0]].parser().parse_args(command.words[1:])
    else:
        with mock.patch.object(export, "export"), mock.patch.object(init, "plan_for", proposed):
            cli.main(command.words)


def build_study(words: tuple[str, ...], page: Path) -> None:
    """Build the first training or test of cells that have each level of the study at least once.

    A study of the package is built for its own header; the command of another page is checked.
    """
    asked, extra = sweep.parser().parse_known_args(words)
    if asked.study == "mine.yaml":  # the example of the page
        example = (ROOT / "docs" / "studies.md").read_text().partition("```yaml\n")[2].partition("```")[0]
        Path(asked.study).write_text(example)
    study, out = read_study(study_file(asked.study)), Path("runs/study")
    shutil.rmtree(out, ignore_errors=True)  # a page may name a study several times
    checks.check_extra(extra)
    checks.check_classes(extra, study)
    checks.check_published(study, study_file(asked.study))
    if study.search is not None:
        params = {
            name: each.low if each.values == () else each.values[0] for name, each in study.search.parameters.items()
        }
        cells = [trial_cell(study, 0, params, tuple(extra))]
    else:
        cells = cells_of(study, extra)
    assert chosen_cells(cells, *levels_where(asked.where, study))
    if asked.study != "mine.yaml" and not page.samefile(study_file(asked.study)):
        return
    seen, chosen = set[tuple[str, str]](), []
    for cell in cells:
        if not (seen and cell.levels.items() <= seen):
            seen |= cell.levels.items()
            chosen.append(cell)
    for cell in with_needed(chosen, cells):
        build_cell(cell, out)


def build_cell(cell: Cell, out: Path) -> None:
    """Build the first training or test of a cell; what the others of its commands make is an empty file."""
    cell.write_settings(out)
    found = [word for word in cell.words(cell.commands[0], out) if word != "--ckpt_path=auto"]
    for file in re.findall(rf"(?<==){out}/\S+", " ".join(found)):
        if Path(file).parent.name == "settings" or Path(file) == out / cell.name:
            continue
        assert Path(file).exists(), f"{cell} needs {file}, and no cell before it has made it"
    Built([*found, *[f"--trainer.{word}" for word in CPU]])
    made = {"predict": "pseudo_labels.npz", "UnlabeledPriorEstimator": "prior.json"}
    words = " ".join([*cell.commands, *[str(part.contents) + str(part.settings) for part in cell.parts]])
    for maker, file in made.items():
        if maker in words:
            (out / cell.name / file).touch()


def proposed(asked: argparse.Namespace) -> Plan:
    """What `tailmatch init` would propose for two classes."""
    source = Source("tailmatch.datamodules.ImageFolder", {"root": asked.images}, can_merge=False)
    plan = propose(source, Survey(["a", "b"], {"train": [9, 9]}, 0, 0, 0, 0), (32, "why"), "cpu")
    return replace(plan, network=Choice("CifarResNet"))


class Parsed(Exception):
    """The options of a program are right."""


def parse_only(command: Command) -> None:
    def stop_after(parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        _, unknown = parse(parser, *args, **kwargs)
        assert not unknown
        raise Parsed

    parse: Any = argparse.ArgumentParser.parse_known_args  # which `parse_args` calls, too
    module = importlib.import_module(command.program)
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", stop_after),
        mock.patch.object(sys, "argv", [command.program, *command.words]),
        pytest.raises(Parsed),
    ):
        module.main()


def pages() -> list[Any]:
    """Make parameters of all pages that have commands; `make test` builds one study of many."""
    found = [(page, str(page.relative_to(ROOT))) for page in PAGES if commands_of(page)]
    others = [name for _, name in found if name.startswith("configs/studies/") and not name.endswith("/demo.yaml")]
    marks = {name: [pytest.mark.exhaustive] for name in others}
    return [pytest.param(page, id=name, marks=marks.get(name, [])) for page, name in found]


@pytest.mark.parametrize("page", pages())
def test_commands_of_a_page_are_built(page: Path, world: Path, template: Path) -> None:
    for command in commands_of(page):
        provide_runs(command.words, template)
        build(command, page)


def test_every_configuration_is_in_a_command() -> None:
    files = {str(path.relative_to(ROOT / "configs")) for path in (ROOT / "configs").rglob("*.yaml")}
    named = {word for page in PAGES for command in commands_of(page) for word in command.words}
    assert not files - named


def test_every_block_of_yaml_is_yaml() -> None:
    found = re.compile(r"^( *)```yaml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [(page.name, match[2]) for page in pages for match in found.finditer(page.read_text(encoding="utf-8"))]
    assert len(blocks) > 5
    for name, block in blocks:
        assert parse_yaml(textwrap.dedent(block), name)
