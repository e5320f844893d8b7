"""Which messages of Lightning and torch are not shown."""

import logging
import warnings

NOISE = (
    ".*overridden `on_after_batch_transfer`.*",
    ".*does not have many workers.*",
    ".*dataloader is not resumable.*",  # ours begin at the step of the resume
    ".*LeafSpec.*",
    ".*in eval mode at the start of training.*",  # a frozen backbone
    ".*No complete tensor found in the group.*",  # channels-last weights, exported as they are
    ".*call of `lr_scheduler.step\\(\\)` before `optimizer.step.*",  # 16-mixed skips its first steps
)
"""Warnings of what is meant here."""


def quiet_known_noise() -> None:
    """Drop messages that ask for nothing: advertisements, and warnings of what is meant here."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(is_no_advertisement)


def is_no_advertisement(record: logging.LogRecord) -> bool:
    """Whether a message is to be shown."""
    return "Tip:" not in record.getMessage()
