"""The help shows what users need first, and names only what can be chosen."""

import pytest

from tailmatch.cli import main
from tailmatch.command_line.lightning_cli import TailmatchCLI
from tailmatch.command_line.typed import OPTIONS


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_the_help_of_a_command_has_ours_first_and_examples_last(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: tailmatch {command} ")
    order = [
        "--run_dir",
        "--ckpt_path",
        "\nmethod:",
        "\ndata:",
        "--checkpoint.monitors",
        "\nLightning's trainer:",
        "\nexamples:",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "FixMatchABC," in text and "ImageTable," in text
    assert "BalancedHead" not in text and "MixingClassifier" not in text and "BestCheckpoint" not in text
    assert text.endswith("the configurations that --config knows by name\n")


def test_the_options_that_are_known_before_the_parser_are_the_parsers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()

    def note(cli: TailmatchCLI, parser: object, args: object) -> None:
        for command in cli.subcommands():
            found.update(action.dest.split(".")[0] for action in cli._subcommand_parsers[command]._actions)
        raise SystemExit

    monkeypatch.setattr(TailmatchCLI, "parse_arguments", note)
    with pytest.raises(SystemExit):
        TailmatchCLI([])
    assert found - {"==SUPPRESS=="} == set(OPTIONS)
