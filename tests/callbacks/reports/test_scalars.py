"""Settings under TensorBoard's HPARAMS."""

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from tailmatch.callbacks.reports import scalars


@pytest.mark.parametrize("package", ["torch.utils.tensorboard", "tensorboardX"])
def test_settings_are_shown_beside_metrics_and_no_number_is_written_twice(package: str, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    if package == "tensorboardX":
        from tensorboardX import SummaryWriter

        logger._experiment = SummaryWriter(str(tmp_path))
    trainer = Trainer(logger=[logger, CSVLogger(tmp_path / "csv")], accelerator="cpu")
    scalars.log_settings(trainer, {"model.optimizer.lr": 0.03, "data": "Digits \x1b"}, ["val/top1"])
    logger.log_metrics({"val/top1": 0.5}, 7)
    logger.save()
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(each.step, each.value) for each in events.Scalars("val/top1")] == [(7, 0.5)]
    content: dict[str, Any] = {
        name: HParamsPluginData.FromString(raw) for name, raw in events._plugin_to_tag_to_content["hparams"].items()
    }
    start = content["_hparams_/session_start_info"].session_start_info.hparams
    assert start["model.optimizer.lr"].number_value == 0.03 and start["data"].string_value == r"Digits \x1b"
    (metric,) = content["_hparams_/experiment"].experiment.metric_infos
    assert metric.name.tag == "val/top1"
    assert "model.optimizer.lr: 0.03" in (tmp_path / "hparams.yaml").read_text()
