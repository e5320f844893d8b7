"""The configuration of a run is in its folder and in its checkpoints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tailmatch.command_line.run_config import RunConfig
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import CONFIG_KEY


def test_the_text_in_all_checkpoints_of_a_run_is_made_once(tmp_path: Path) -> None:
    parser, trainer = mock.Mock(), mock.Mock()
    parser.dump.return_value = "run_dir: runs/demo"
    callback = RunConfig(parser, SimpleNamespace(run_dir=str(tmp_path)))
    checkpoints: list[dict[str, Any]] = [{}, {}]
    for checkpoint in checkpoints:
        callback.on_save_checkpoint(trainer, mock.Mock(), checkpoint)
    assert checkpoints == 2 * [{CONFIG_KEY: "run_dir: runs/demo"}]
    assert parser.dump.call_count == 1
