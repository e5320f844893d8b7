"""The commands themselves: what there is, and `tailmatch configs`."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from tailmatch import __version__ as tailmatch_version
from tailmatch.cli import COMMANDS
from tailmatch.command_line.configs import packaged
from tests.typed import call_here as tailmatch

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_says_what_commands_there_are(words: list[str]) -> None:
    result = tailmatch(*words)
    assert result.returncode == 0
    assert tuple(re.findall(r"^  (\w+)  ", result.stdout, re.MULTILINE)) == COMMANDS


def test_version() -> None:
    assert tailmatch("--version").stdout == f"tailmatch {tailmatch_version}\n"


def test_an_unknown_command_is_one_message() -> None:
    result = tailmatch("fitt", "--config=demo.yaml")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == (
        f"tailmatch: error: unknown command fitt; the commands are {', '.join(COMMANDS)}\n  Did you mean: fit?\n"
    )


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (["--config", "demo.yaml", "fit"], "fit --config demo.yaml\n"),
        (["--config=demo.yaml"], f"COMMAND --config=demo.yaml\n  The commands are {', '.join(COMMANDS)}\n"),
    ],
)
def test_an_option_before_the_command_shows_the_right_order(words: list[str], right: str) -> None:
    result = tailmatch(*words)
    assert result.returncode == 2 and result.stdout == ""
    option = words[0]
    assert result.stderr == (
        f"tailmatch: error: the option {option} is before the command; the command comes first: tailmatch {right}"
    )


@pytest.mark.parametrize("command", ["refine", "select", "export", "configs"])
def test_other_commands_have_their_own_help(command: str) -> None:
    assert f"usage: tailmatch {command}" in tailmatch(command, "--help").stdout


@pytest.mark.parametrize(
    "name", ["FixMatch", "lightning_modules.FixMatch", "Supervised", "SelfTraining", "MoCoPretraining"]
)
def test_the_help_of_a_method_lists_views_and_not_all_of_torch(name: str) -> None:
    text = tailmatch("fit", "--model.help", name).stdout
    assert "lightning_modules.views.StrongView" in text and "torch.nn.Bilinear" not in text
    assert len(text.splitlines()) < 300  # some 1,500 with all of torch.nn; classes of other tests may be listed too


def test_configs_lists_every_file_with_its_first_line() -> None:
    lines = tailmatch("configs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(packaged())
    assert {line.split()[0] for line in lines} == {str(file.relative_to(CONFIGS)) for file in CONFIGS.rglob("*.yaml")}
    assert all(len(line.split()) > 1 for line in lines)
    assert any(
        line.startswith("demo.yaml ") and "FixMatch + DARP on long-tailed handwritten digits" in line for line in lines
    )


def test_configs_copies_a_file_to_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    places = [([], "digits_lt.yaml"), (["folder"], "folder/digits_lt.yaml"), (["mine.yaml"], "mine.yaml")]
    for to, file in places:
        assert tailmatch("configs", "copy", "data/digits_lt.yaml", *to).stdout == f"copied: {file}\n"
        assert (tmp_path / file).read_text() == (CONFIGS / "data" / "digits_lt.yaml").read_text()


def test_configs_never_writes_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("mine")
    for to in (tmp_path, tmp_path / "demo.yaml"):
        refused = tailmatch("configs", "copy", "demo.yaml", str(to))
        assert refused.returncode == 2 and f"{tmp_path / 'demo.yaml'} exists: name another file" in refused.stderr
    assert (tmp_path / "demo.yaml").read_text() == "mine"


def test_configs_says_what_it_cannot_copy(tmp_path: Path) -> None:
    unknown = tailmatch("configs", "copy", "digit_lt.yaml", str(tmp_path))
    assert unknown.returncode == 2 and "Did you mean: data/digits_lt.yaml" in unknown.stderr
    nowhere = tailmatch("configs", "copy", "demo.yaml", str(tmp_path / "no" / "demo.yaml"))
    assert nowhere.returncode == 2 and f"there is no folder {tmp_path / 'no'}" in nowhere.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_classes_are_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "callbacks").mkdir()
    own = "from pytorch_lightning import Callback\nclass Mine(Callback): pass\n"
    (tmp_path / "callbacks" / "__init__.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place).resolve() != CONFIGS.parent])
    typed = ["--trainer.callbacks+=callbacks.Mine", "--trainer.callbacks+=callbacks.LastEvaluations"]
    result = tailmatch("fit", "--config=demo.yaml", *typed, "--print_config")
    sys.modules.pop("callbacks", None)
    assert result.returncode == 0, result.stderr
    paths = [callback["class_path"] for callback in yaml.safe_load(result.stdout)["trainer"]["callbacks"]]
    assert paths[-2:] == ["callbacks.Mine", "tailmatch.callbacks.LastEvaluations"]
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["fit", "--config=demo.yaml", "--run_dir="], "run_dir"),
        (["fit", "--config=demo.yaml", "--config={run_dir: ''}"], "run_dir"),
        (["fit", "--config=demo.yaml", "--ckpt_path", ""], "--ckpt_path"),
        (["predict", "--config=demo.yaml", "--run_dir=x", "--output", ""], "output"),
    ],
)
def test_an_empty_path_is_refused(words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = tailmatch(*words)
    assert result.returncode == 1 and list(tmp_path.iterdir()) == []
    assert result.stderr.startswith(f"tailmatch: error: {name} is empty; give")


def test_a_base_class_is_refused_by_name() -> None:
    result = tailmatch("fit", "--data=ImageFiles", "--data.root=.", "--model=FixMatch")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "--data: " in result.stderr and "is a base class; name one of its subclasses" in result.stderr
