"""The configuration of a run is in its folder and in its checkpoints."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.summary.writer.record_writer import RecordWriter

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


def test_a_slow_writer_leaves_no_log_of_a_command_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = RecordWriter.write

    def slow(writer: RecordWriter, event: bytes) -> None:
        time.sleep(0.5)
        write(writer, event)

    callback = RunConfig(mock.Mock(), SimpleNamespace(run_dir=str(tmp_path)))
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    logger.log_metrics({"train/loss": 1.0})
    monkeypatch.setattr(RecordWriter, "write", slow)
    logger.log_metrics({"train/loss": 2.0})
    trainer = SimpleNamespace(is_global_zero=True, loggers=[logger], default_root_dir=str(tmp_path))
    callback.on_exception(trainer, mock.Mock(), RuntimeError())  # type: ignore[arg-type]
    logger.finalize("failed")  # as Lightning does afterwards
    assert list(tmp_path.iterdir()) == []
