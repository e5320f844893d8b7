"""Complete the settings of a command with what follows from others, and refuse those that mean nothing."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from tailmatch.command_line import callback_list, predict
from tailmatch.command_line.resume import IN_RUN
from tailmatch.command_line.run_folder import default_run_dir, free_run_dir, run_dir_of
from tailmatch.command_line.settings_of_checkpoint import check_weights
from tailmatch.command_line.typed import Typed
from tailmatch.datamodules.arguments import SettingsError, check_between, check_count
from tailmatch.lightning_modules.training.schedules import check_schedule


def complete(typed: Typed, settings: Any, checkpoint: Path | None) -> None:
    """Set what follows from other settings: the checkpoint, the run folder, facts for a prediction.

    Args:
        typed: The command line.
        settings: The configuration of the subcommand; it is changed in place.
        checkpoint: The checkpoint of the command line. None: it names none, or there is none yet.

    Raises:
        SettingsError: A setting means nothing, or does not fit the command.
    """
    check_parsed(settings)
    if isinstance(settings.trainer.callbacks, list):
        settings.trainer.callbacks = callback_list.joined(settings.trainer.callbacks)
    settings.trust_checkpoint = False  # it holds for this command alone, and is not kept in its configuration
    check_weights(typed.subcommand, settings.model.class_path, checkpoint)
    _set_checkpoint(typed, settings, checkpoint)
    predict.take_facts(typed, settings, checkpoint)
    if typed.subcommand == "predict" and not any(name.startswith("--trainer.logger") for name, _ in typed.options):
        settings.trainer.logger = False  # a prediction logs nothing
    if settings.run_dir is None and typed.subcommand != "fit":
        settings.run_dir = str(free_run_dir(default_run_dir(settings)))


def _set_checkpoint(typed: Typed, settings: Any, checkpoint: Path | None) -> None:
    """Set `ckpt_path` to the file that was found, and `run_dir` to its folder unless one is typed."""
    if checkpoint is not None:
        settings.ckpt_path = str(checkpoint)
        if not typed.values("--run_dir"):
            own = run_dir_of(checkpoint)
            settings.run_dir = None if own is None else str(own)
    elif typed.checkpoint == "auto":
        settings.ckpt_path = None  # there is none yet
    elif settings.ckpt_path in IN_RUN:
        raise SettingsError(f"ckpt_path is {settings.ckpt_path} in a configuration: type it, --ckpt_path auto")


def check_parsed(settings: Any) -> None:
    """Refuse what the parser accepts and Lightning does not.

    Raises:
        SettingsError: The seed is none of numpy's, the trainer has no settings, an interval of logging is negative, a
            setting of the trainer has no meaning for a run, the schedule is refused, a path is empty, or the number of
            classes is given, which the data has.
    """
    if not isinstance(settings.seed_everything, bool | None):
        check_between("seed_everything", settings.seed_everything, 0, 2**32 - 1)
    if not isinstance(settings.trainer, Namespace):
        given = "null" if settings.trainer is None else settings.trainer
        raise SettingsError(f"trainer is {given}; leave it out, or give its settings")
    check_count("trainer.log_every_n_steps", settings.trainer.log_every_n_steps or 0, 0)
    check_schedule(getattr(settings.model.get("init_args", {}).get("lr_scheduler"), "class_path", None))
    if settings.trainer.default_root_dir is not None:
        raise SettingsError(
            f"trainer.default_root_dir is {settings.trainer.default_root_dir}; the folder of a run is --run_dir: leave "
            "the former out"
        )
    if settings.trainer.barebones:
        raise SettingsError(
            "trainer.barebones is true, which refuses loggers and checkpoints, and a run has both; leave it out"
        )
    if settings.model.get("init_args", {}).get("num_classes") is not None:
        raise SettingsError("model.num_classes is given; leave it out, since the data has the number of classes")
    for name in ("run_dir", "output"):
        if settings.get(name) == "":  # such as a variable of a script that is not set
            raise SettingsError(f"{name} is empty; give a path, or leave it out")
