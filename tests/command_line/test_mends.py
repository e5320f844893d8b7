"""What jsonargparse does without our mends, and with them.

When a test of the faulty behaviour fails, upstream has mended it: drop our function in `command_line/mends.py`.
"""

from typing import Any

import pytest
from jsonargparse import ArgumentParser, _typehints
from torch import nn

from tailmatch.command_line.mends import MENDED, UPSTREAM
from tailmatch.command_line.parser import Parser
from tailmatch.lightning_modules.networks import NetworkFactory


class Base:
    pass


class Other:
    def __init__(self, text: str | None = "DEFAULT") -> None:
        self.text = text


class First(Base):
    def __init__(self, decay: float = 0.1, inner: Other | None = None) -> None:
        pass


class Second(Base):
    def __init__(self, decay: float = 0.2, inner: Other | None = None) -> None:
        pass


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jsonargparse as it is."""
    for name, function in UPSTREAM.items():
        monkeypatch.setattr(_typehints, name, function)


def parsed(parser: ArgumentParser, *args: str) -> Any:
    parser.add_argument("--part", type=Base)
    return parser.parse_args(list(args)).part


ANEW = [f"--part={__name__}.First", "--part.decay=0.5", f"--part={__name__}.Second"]
NULL = [f"--part={__name__}.First", f"--part.inner={__name__}.Other", "--part.inner.text=null"]


@pytest.mark.usefixtures("upstream")
def test_upstream_carries_arguments_into_a_class_named_anew() -> None:
    assert parsed(ArgumentParser(), *ANEW).init_args.decay == 0.5  # omni-us/jsonargparse#460


@pytest.mark.usefixtures("upstream")
def test_upstream_makes_a_text_of_a_null_in_an_argument_of_an_argument() -> None:
    assert parsed(ArgumentParser(), *NULL).init_args.inner.init_args.text == "None"


@pytest.mark.usefixtures("upstream")
def test_upstream_keeps_the_path_that_was_typed() -> None:
    path = "tailmatch.lightning_modules.training.schedules.StepDecay"
    assert _typehints.resolve_class_path_by_name(object, path) == path


OWN = f"--network={__name__}.OwnNetwork"


class OwnNetwork(nn.Module):
    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()
        self.width = width


@pytest.mark.usefixtures("upstream")
def test_upstream_refuses_a_module_that_is_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--network", type=NetworkFactory)
    with pytest.raises(SystemExit):
        parser.parse_args([OWN])
    assert "to be a subclass of" in capsys.readouterr().err


def test_a_module_of_the_user_is_a_network_and_others_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser()
    parser.add_argument("--network", type=NetworkFactory)
    network = parser.instantiate_classes(parser.parse_args([OWN, "--network.width=6"])).network(10)
    assert isinstance(network, OwnNetwork) and network.width == 6
    for other in (
        "torch.nn.Linear",
        "tailmatch.lightning_modules.FixMatch",
        "tailmatch.lightning_modules.views.WeakView",
    ):
        with pytest.raises(SystemExit):
            parser.parse_args([f"--network={other}"])
        assert other in capsys.readouterr().err


def test_a_parser_of_ours_mends_them() -> None:
    second = parsed(Parser(), *ANEW)
    assert (second.class_path, second.init_args.decay) == (f"{__name__}.Second", 0.2)
    assert parsed(Parser(), *NULL).init_args.inner.init_args.text is None
    for name, function in MENDED.items():
        assert getattr(_typehints, name) is function and UPSTREAM[name] is not function
