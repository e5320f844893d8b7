"""Lightning's command line, with this package's run folders, checkpoints and defaults."""

import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from tailmatch.callbacks.checkpoints import Checkpoints
from tailmatch.callbacks.reports.html.callback import HtmlReport
from tailmatch.callbacks.reports.html.page import FILE
from tailmatch.command_line.completion import complete
from tailmatch.command_line.errors import message_for_user
from tailmatch.command_line.help import arrange_help
from tailmatch.command_line.options import add_run_options, add_subcommand_options
from tailmatch.command_line.parser import Parser
from tailmatch.command_line.results import results_of_fit
from tailmatch.command_line.resume import resolve_checkpoint, step_of
from tailmatch.command_line.run_config import RunConfig
from tailmatch.command_line.run_folder import is_writer, take_run_dir
from tailmatch.command_line.settings_of_checkpoint import (
    class_names_of_source,
    config_of_checkpoint,
    data_of_members,
    files_of,
    network_of_source,
    stranger_of,
    trusts,
)
from tailmatch.command_line.signals import SIGNALS, Stop
from tailmatch.command_line.stop_at_step_end import end_launched, how_to_continue, take_over_signals
from tailmatch.command_line.trainer import (
    added_callbacks,
    predicted_files,
    trainer_arguments,
    without_devices,
    without_gpu,
)
from tailmatch.command_line.typed import Typed, check_overlays
from tailmatch.datamodules import ImageDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.image_files import ImageFiles
from tailmatch.datamodules.locks import sole_output
from tailmatch.datamodules.output_files import check_writable, naming
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.inference.class_paths import import_public_classes
from tailmatch.lightning_modules.inference.trust import Stranger, names_in, settings_from, trust_checkpoints
from tailmatch.lightning_modules.training.heap import keep_freed_memory
from tailmatch.lightning_modules.training.run_folder import choose_run_folder

import_public_classes()  # now, and not while a command runs: see `SIGNALS.importing`


class TailmatchCLI(LightningCLI):
    """LightningCLI with run folders, checkpoints that carry their configuration, and class-wise defaults."""

    def __init__(self, args: list[str] | None = None) -> None:
        self.typed = sys.argv[1:] if args is None else args
        with ExitStack() as self.held:  # what this command alone may write
            self._run_command(args)

    def _run_command(self, args: list[str] | None) -> None:
        keep_freed_memory()
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            parser_class=Parser,
            trainer_defaults={
                "use_distributed_sampler": False,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,  # `NetworkReport` says the number of parameters
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name the subcommands and the arguments they skip; `predict` writes files, and returns no predictions."""
        known = LightningCLI.subcommands()
        return known | {"predict": known["predict"] | {"return_predictions"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder and the checkpoints, and link what the method takes from the data."""
        add_run_options(parser)
        parser.add_class_arguments(Checkpoints, "checkpoint")
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Add `--output` to `predict` and `--report` to `test`, and arrange the help.

        Arguments take time to add. A subcommand gets none if another one was typed: only its line in the help is shown.
        """
        if self.typed and self.typed[0] in self.subcommands().keys() - {subcommand}:
            return self.init_parser(**kwargs)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        add_subcommand_options(parser, subcommand)
        if isinstance(parser, Parser):
            arrange_help(parser, subcommand)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line; without a `--config` of model or data, on top of the checkpoint's configuration.

        A method that begins with the `checkpoint` of another run takes the network's settings from it in the same way,
        and an ensemble of several `checkpoints` takes the data of the first. Typed options take precedence.
        """
        typed = Typed.read(self.typed)
        check_overlays(typed)
        checkpoint = resolve_checkpoint(typed)
        self.again = typed.checkpoint == "auto"
        self.resumed_at = None if checkpoint is None or typed.subcommand != "fit" else step_of(checkpoint)
        self.trust = trusts(typed)
        self.stranger = stranger_of(typed, checkpoint)
        with trust_checkpoints(self.trust), settings_from(self.stranger):
            self._parse(parser, typed, checkpoint)

    def _parse(self, parser: LightningArgumentParser, typed: Typed, checkpoint: Path | None) -> None:
        below = None
        if not typed.has_settings:
            below = config_of_checkpoint(checkpoint, typed, self.stranger) if checkpoint else data_of_members(typed)
        self.named_data = below is not None and "data" in yaml.safe_load(below)
        self.root_is_typed = any(name in ("--data.root", "--data.init_args.root") for name, _ in typed.options)
        self.config = parse(parser, typed, below)
        # Only the parsed settings say which checkpoint the method begins with, since there are many ways to name it.
        # Typed options such as `--model.network.depth 20` change its network, so that all is parsed again on top of it.
        model = self.config[self.config.subcommand].model
        source = None if checkpoint else model.init_args.get("checkpoint")
        if source is not None:
            parsed = parser.dump(self.config, skip_validation=True)
            self.stranger = Stranger(str(source), typed=names_in([parsed, *typed.texts()]))
            with settings_from(self.stranger):
                network = network_of_source(model)
                if network is not None:
                    self.config = parse(parser, typed, network, below)
        complete(typed, self.config[self.config.subcommand], checkpoint)

    def _parse_ckpt_path(self) -> None:
        """Do nothing, since `parse_arguments` has read the configuration of the checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Take the folder or the file that this command writes, before it does anything else."""
        settings = self.config[self.subcommand]
        if self.subcommand == "fit":
            settings.run_dir = str(take_run_dir(settings, self.again, self.held))
            settings.overwrite = False  # it is done, and not kept in the run's configuration
            return
        if self.subcommand == "test" and is_writer(settings.trainer):
            for file in self.files_of_test(settings):
                self.held.enter_context(sole_output(file))
        # The best score of the training does not matter here, and its callbacks are left out on purpose.
        warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
        if self.stranger is not None:
            warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")

    def files_of_test(self, settings: Any) -> list[Path]:
        """List the files of a test that one command alone may write at a time."""
        folder = Path(settings.run_dir)
        return [folder / "test_metrics.json", *([folder / FILE] if settings.report else [])]

    def instantiate_classes(self) -> None:
        """Build what was parsed, and nothing that a stranger's checkpoint named beside it."""
        with trust_checkpoints(self.trust), settings_from(self.stranger):
            try:
                super().instantiate_classes()
            except (ValueError, TypeError, LookupError) as error:
                if self.stranger is None or message_for_user(error) is not None:
                    raise
                raise SettingsError(
                    f"the settings in checkpoint {self.stranger.source!r} cannot be built: {error}"
                ) from error
        if isinstance(self.datamodule, ImageFiles):
            self.datamodule.take_class_names(class_names_of_source(self.config[self.subcommand]))
        if self.stranger is not None and self.named_data:
            self._say(f"data that {self.stranger.source} names: {files_of(self._get(self.config, 'data'))}")
            self.datamodule.may_download = self.root_is_typed

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make a trainer that logs and saves in the run folder."""
        subcommand = str(self.subcommand)
        settings = self.config_init[subcommand]
        run_dir = Path(settings.run_dir)
        callbacks = added_callbacks(subcommand, settings, run_dir)
        if subcommand == "predict":
            for file in predicted_files(settings, callbacks, run_dir):
                self.held.enter_context(sole_output(file))
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        try:
            trainer = super().instantiate_trainer(**trainer_arguments(settings, run_dir), **kwargs)
        except SettingsError:
            raise
        except (ValueError, TypeError) as error:  # how Lightning refuses devices, a strategy or a plugin
            raise SettingsError(f"the trainer cannot be made: {error}") from error
        except MisconfigurationException as error:
            missing = without_gpu(settings.trainer) or without_devices(settings.trainer)
            if missing is None:
                raise
            raise missing from error
        choose_run_folder(trainer, run_dir)
        take_over_signals(trainer, run_dir)
        return trainer

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Keep no predictions in memory, and print no table of Lightning beside `EvaluationTable`."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        own = {"predict": {"return_predictions": False}, "test": {"verbose": False}, "validate": {"verbose": False}}
        return kwargs | own.get(subcommand, {})

    def _run_subcommand(self, subcommand: str) -> None:
        """Run a command; if a signal stops a fit, say how to continue."""
        run_dir = self._get(self.config, "run_dir")
        try:
            if self.trainer.loggers:
                check_writable(Path(run_dir) / "config.yaml")
            if subcommand == "fit" and self.trainer.checkpoint_callbacks:
                check_writable(Path(run_dir) / "checkpoints" / "last.ckpt")
            with naming(run_dir):  # what has no name of its own are files of the run, such as logs
                super()._run_subcommand(subcommand)
        except (Exception, Stop) as error:
            stop = SIGNALS.behind(error)
            if stop is None:
                raise
            end_launched(self.trainer, stop.signum)
            if subcommand == "fit":
                stop.hint = how_to_continue(self.trainer, str(run_dir))
            raise stop from error

    def after_fit(self) -> None:
        """Say what the best result is, where things are, and what to do next."""
        if self.trainer.global_step == self.resumed_at:
            self._say(
                f"the run had finished at step {self.resumed_at}: nothing was left to train "
                "(for a longer training: --trainer.max_epochs)"
            )
        for line in results_of_fit(self.trainer, self.datamodule, str(self._get(self.config, "run_dir"))):
            self._say(line)

    def after_test(self) -> None:
        """Say where things are."""
        self._say(f"test metrics: {Path(self._get(self.config, 'run_dir')) / 'test_metrics.json'}")
        self.say_where_the_report_is()

    def say_where_the_report_is(self) -> None:
        """Name the report, if there is one."""
        report = self.html_report()
        if report is not None and report.path is not None:
            self._say(f"report: {report.path}")

    def html_report(self) -> HtmlReport | None:
        """Return the callback that writes the report of a test; None if none is written."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # set by its callback connector
        return next((each for each in callbacks if isinstance(each, HtmlReport)), None)

    @rank_zero_only
    def _say(self, text: str) -> None:
        print(text, flush=True)


def parse(parser: LightningArgumentParser, typed: Typed, *below: str | None) -> Namespace:
    """Parse what is typed, over settings that lie below it: YAML texts, which `--config` takes as it takes files."""
    texts = [f"--config={text}" for text in below if text is not None]
    return parser.parse_args([*typed.words[:1], *texts, *typed.words[1:]])
