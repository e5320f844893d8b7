"""Noise that is dropped, and what is shown all the same."""

import logging
import warnings

import pytest

from tailmatch.lightning_modules.training.quiet import quiet_known_noise


def test_known_warnings_are_dropped_and_no_others() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        quiet_known_noise()
        warnings.warn("You have overridden `on_after_batch_transfer` in `LightningModule` but ...", stacklevel=1)
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck.", stacklevel=1)
        warnings.warn("It is recommended to use `self.log('val/top1', ..., sync_dist=True)` when ...", stacklevel=1)
        warnings.warn("You have overridden `transfer_batch_to_device`", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["You have overridden `transfer_batch_to_device`"]


def test_advertisements_are_dropped_once_and_for_all(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    quiet_known_noise()
    before = len(logger.filters)
    quiet_known_noise()
    assert len(logger.filters) == before
    with caplog.at_level(logging.INFO, logger=logger.name):
        logger.info("Tip: For seamless cloud uploads and versioning, try installing ...")
        logger.info("The following callbacks ... will override existing callbacks passed to Trainer: _BeginFit")
        logger.info("The following callbacks ... will override existing callbacks passed to Trainer: Mine")
        logger.info("GPU available: False")
    assert [record.getMessage()[-4:] for record in caplog.records] == ["Mine", "alse"]
