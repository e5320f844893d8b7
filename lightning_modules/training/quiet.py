"""Messages of Lightning and torch that ask for nothing, dropped: from Python and on the command line."""

import logging
import threading
import warnings

KNOWN_NOISE = (
    ".*overridden `on_after_batch_transfer`.*",  # where views are made
    ".*does not have many workers.*",  # data in memory is fastest without
    ".*recommended to use `self.log\\('(val|test)/.*sync_dist=True.*",  # the counts are those of all processes already
    ".*dataloader is not resumable.*",  # ours begin at the step of the resume
    ".*isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # between Lightning and torch
    ".*in eval mode at the start of training.*",  # a frozen backbone
    ".*No complete tensor found in the group.*",  # channels-last weights, exported as they are
    ".*call of `lr_scheduler.step\\(\\)` before `optimizer.step.*",  # 16-mixed skips its first steps
)
"""Warnings of what is meant in this package."""


LOGGERS = ("utilities.rank_zero", "trainer.connectors.checkpoint_connector")
"""Loggers of Lightning that write such messages."""


def quiet_known_noise() -> None:
    """Drop these warnings, advertisements, and what is said of this package's own callbacks; all else is shown.

    `tailmatch.lightning_modules` calls it when it is imported.
    """
    for message in KNOWN_NOISE:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGERS:
        logging.getLogger(f"pytorch_lightning.{name}").addFilter(_is_of_use)  # once, however often
    threading.excepthook = _print_exception


_PRINT_EXCEPTION = threading.excepthook


def _print_exception(args: threading.ExceptHookArgs) -> None:
    """Print the exception that ends a thread, unless TensorBoard raises it once more where the log is written."""
    if not type(args.thread).__module__.startswith("tensorboard."):
        _PRINT_EXCEPTION(args)


def _is_of_use(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    own = "override existing callbacks" in text and "_BeginFit" in text  # a second run of one trainer
    saving = "`weights_only` was not set" in text  # a checkpoint is read as tensors and plain values all the same
    others = "TPU available: False" in text
    return "Tip:" not in text and not own and not saving and not others
