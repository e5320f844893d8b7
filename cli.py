"""The command line: `tailmatch fit | validate | test | predict | export`, with YAML files and any class's arguments."""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import yaml
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger

from tailmatch.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints, checkpoint_callbacks
from tailmatch.callbacks.reports.run import ClassCountsReport, EvaluationFigures, ViewGrid
from tailmatch.command_line import predict as predict_command
from tailmatch.command_line.parser import Parser, mend_parsing
from tailmatch.command_line.run_folder import (
    check_overlays,
    claim_run_dir,
    free_run_dir,
    resolve_checkpoint,
    run_dir_of,
    typed_values,
)
from tailmatch.datamodules import ImageDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import (
    CONFIG_KEY,
    read_checkpoint,
    settings_of,
    unknown_of,
)
from tailmatch.lightning_modules.checkpoints.weights import read_file
from tailmatch.lightning_modules.inference import export
from tailmatch.lightning_modules.inference.trained_network import class_named, network_to_rebuild
from tailmatch.lightning_modules.training.quiet import quiet_known_noise


class RunConfig(SaveConfigCallback):
    """Saves the configuration of a fit as `config.yaml` and in every checkpoint."""

    _written: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Only a fit writes: a test of the same run leaves its configuration alone."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`, on rank zero."""
        file = Path(trainer.default_root_dir) / "config.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        self._written = None if file.exists() else file
        self.parser.save(self.config, file, skip_unset=False, overwrite=True, multifile=False)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no run behind that failed before its first step: the next try takes the same folder."""
        if self._written is not None and trainer.global_step == 0:
            self._written.unlink(missing_ok=True)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep it in the checkpoint."""
        checkpoint[CONFIG_KEY] = self.parser.dump(self.config, skip_unset=False)


class TailmatchCLI(LightningCLI):
    """LightningCLI with run folders, checkpoints that carry their configuration, and class-wise defaults."""

    def __init__(self, args: list[str] | None = None) -> None:
        super().__init__(
            ImageClassifier,
            ImageDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=RunConfig,
            save_config_kwargs={"save_to_log_dir": False},
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "epilog": "tailmatch export CHECKPOINT FILE: write a network as ONNX or torch.export program"
            },
            trainer_defaults={"use_distributed_sampler": False, "num_sanity_val_steps": 0},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands. `predict` writes files as it goes, so that it has nothing to return."""
        known = LightningCLI.subcommands()
        return known | {"predict": known["predict"] | {"return_predictions"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Run folder, checkpoints, and what the method takes from the data."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of logs, config.yaml, checkpoints/ and test_metrics.json "
            "(default: a new folder under runs/, or that of the checkpoint given).",
        )
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="Start anew in a run_dir that holds a run (the old one is moved aside, not deleted); of predict: "
            "replace the output.",
        )
        parser.add_class_arguments(Checkpoints, "checkpoint")
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Of `predict`, an output."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument(
                "--output",
                type=str | None,
                default=None,
                help="File to write: .csv, .tsv, .txt or .parquet for a table (PredictionWriter), .npz for "
                "pseudo-labels (PseudoLabelWriter). Default, in run_dir: pseudo_labels.npz, or "
                "predictions.csv for images without labels (UnlabeledImages).",
            )
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Without a `--config`, take the configuration of the checkpoint; what is typed wins over it.

        A method that begins with a `checkpoint` of another run takes the network's settings from it in the same way,
        and one of several `checkpoints` the data of the first.
        """
        typed = list(sys.argv[1:] if args is None else args)
        check_overlays(typed)
        resolved = resolve_checkpoint(typed)
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder) / "config.yaml"
            if not typed_values(typed, "--config", "-c"):
                config = config_of_checkpoint(resolved, typed[0]) if resolved else data_of_members(typed)
                if config is not None:
                    base.write_text(config)
                    typed[1:1] = ["--config", str(base)]
            self.config = parser.parse_args(typed)
            network = None if resolved else network_of_source(self.config[self.config.subcommand].model)
            if network is not None:
                base.write_text(yaml.safe_dump({"model": network}))
                typed[1:1] = ["--config", str(base)]
                self.config = parser.parse_args(typed)
        settings = self.config[self.config.subcommand]
        check_weights(self.config.subcommand, settings.model.class_path, resolved)
        if resolved is not None:
            settings.ckpt_path = str(resolved)
            if not typed_values(typed, "--run_dir"):
                own = run_dir_of(resolved)
                settings.run_dir = None if own is None else str(own)
        predict_command.take_facts(self.config.subcommand, settings, resolved)
        if self.config.subcommand == "predict" and not any(word.startswith("--trainer.logger") for word in typed):
            settings.trainer.logger = False  # a prediction logs nothing
        if settings.run_dir is None:
            names = [settings[part].class_path.rsplit(".", 1)[-1].lower() for part in ("model", "data")]
            settings.run_dir = str(free_run_dir(Path("runs") / "-".join(names)))

    def _parse_ckpt_path(self) -> None:
        """Do nothing: `parse_arguments` took the checkpoint's configuration, below what the user typed."""

    def before_instantiate_classes(self) -> None:
        """Refuse to write over another run."""
        settings = self.config[self.subcommand]
        if self.subcommand != "fit":  # what was best in training is of no concern then
            warnings.filterwarnings("ignore", message=".*dirpath has changed.*")
        elif settings.ckpt_path is None:
            claim_run_dir(Path(settings.run_dir), settings.overwrite)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs and saves in the run folder."""
        run_dir = Path(self._get(self.config_init, "run_dir"))
        trainer_config = self._get(self.config_init, "trainer")
        kwargs.setdefault("default_root_dir", str(run_dir))
        if trainer_config.logger in (None, True):
            kwargs.setdefault("logger", TensorBoardLogger(save_dir=run_dir, name="", version=""))
        plugins = trainer_config.plugins or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        callbacks: list[Any] = [ClassCountsReport(), ViewGrid(), EvaluationFigures()]
        if trainer_config.logger is False:
            callbacks = [ClassCountsReport()]
        configured = trainer_config.callbacks or []
        configured = configured if isinstance(configured, list) else [configured]
        if self.subcommand == "predict":
            data, *asked = (self._get(self.config_init, name) for name in ("data", "output", "overwrite"))
            callbacks += predict_command.writers(configured, data, run_dir, *asked)
        if trainer_config.enable_checkpointing is not False:
            plan = self._get(self.config_init, "checkpoint")
            callbacks += checkpoint_callbacks(plan, run_dir / "checkpoints")
        self.trainer_defaults = {**self.trainer_defaults, "callbacks": callbacks}
        return super().instantiate_trainer(**kwargs)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Keep no predictions in memory."""
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        return kwargs | {"return_predictions": False} if subcommand == "predict" else kwargs

    def after_fit(self) -> None:
        """Say where things are."""
        self._say(f"run folder: {self._get(self.config, 'run_dir')}")

    def after_test(self) -> None:
        """Say where things are."""
        self._say(f"test metrics: {Path(self._get(self.config, 'run_dir')) / 'test_metrics.json'}")

    @rank_zero_only
    def _say(self, text: str) -> None:
        print(text, flush=True)


def config_of_checkpoint(path: Path, subcommand: str) -> str | None:
    """The configuration in a checkpoint, as YAML.

    But for a fit, its network fetches no pretrained weights, and files are not overwritten because the run's were.
    """
    content = read_file(str(path), mapped=True)
    settings, unknown = (settings_of(content), unknown_of(content)) if isinstance(content, dict) else ({}, {})
    if "network" in unknown:
        raise SettingsError(
            f"checkpoint {path} cannot say how to make its network ({unknown['network']}, and a file holds no code): "
            f"use it in Python, tailmatch.load({str(path)!r}, network=...)"
        )
    if not settings or subcommand == "fit":
        return yaml.safe_dump(settings, sort_keys=False) if settings else None
    settings.pop("overwrite", None)
    arguments = settings.get("model", {}).get("init_args", {})
    if isinstance(arguments.get("network"), dict):
        arguments["network"] = network_to_rebuild(arguments["network"])
    return yaml.safe_dump(settings)


def data_of_members(args: list[str]) -> str | None:
    """Data and seed (of which its split depends) of the first of an ensemble's typed checkpoints, as YAML."""
    typed = typed_values(args, "--model.checkpoints")
    members = yaml.safe_load(typed[-1]) if typed else None
    if not isinstance(members, list) or not members:
        return None
    settings = read_checkpoint(str(members[0])).settings
    return yaml.safe_dump({name: settings[name] for name in ("seed_everything", "data") if name in settings})


def check_weights(subcommand: str, method: str, checkpoint: Path | None) -> None:
    """Refuse a test without trained weights, and a method that brings its own where it would be trained or replaced."""
    name, brings = method.rsplit(".", 1)[-1], class_named(method).brings_weights
    if subcommand == "fit" and brings:
        raise SettingsError(f"{name} is made of trained checkpoints and is not trained: use test, validate or predict")
    if subcommand != "fit" and brings and checkpoint is not None:
        raise SettingsError(f"{name} brings its weights: leave out --ckpt_path {checkpoint}")
    if subcommand != "fit" and not brings and checkpoint is None:
        raise SettingsError(f"{subcommand} needs trained weights: add --ckpt_path best, last or a file")


def network_of_source(model: Any) -> dict[str, Any] | None:
    """Model settings with the network of the checkpoint that a method begins with; None if there is nothing to take."""
    source = model.init_args.get("checkpoint")
    network = None if source is None else read_checkpoint(source).network
    if network is None:
        return None
    return {"class_path": model.class_path, "init_args": {"network": network_to_rebuild(network)}}


def message_for_user(error: BaseException) -> str | None:
    """The message of an error that the user can mend; None of any other.

    jsonargparse and Lightning raise errors of their own from those of ours: the first of the chain counts.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SettingsError):
            return str(cause)
        wrapped = type(cause).__module__.split(".")[0] in ("jsonargparse", "argparse", "pytorch_lightning")
        cause = cause.__cause__ or (cause.__context__ if wrapped else None)
    return None


def main(args: list[str] | None = None) -> None:
    """Run a subcommand; an error that the user can mend is one message and exit code 1 (2 while parsing)."""
    quiet_known_noise()
    mend_parsing()
    typed = sys.argv[1:] if args is None else args
    try:
        if typed[:1] == ["export"]:
            export.main(typed[1:])
        else:
            TailmatchCLI(args)
    except Exception as error:
        message = message_for_user(error)
        if message is None:
            raise
        sys.exit(f"tailmatch: error: {message}")


if __name__ == "__main__":
    main()
