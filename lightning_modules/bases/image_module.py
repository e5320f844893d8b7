"""The base of all methods: network, optimizer, schedule, views, and logged training numbers."""

import math
from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import Self

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.datamodules.batches import VIEW_STREAM, global_seed, mix_seed, training_step_index
from tailmatch.lightning_modules.bases.saved_module import SavedModule
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import CATEGORIES_KEY
from tailmatch.lightning_modules.networks import NetworkFactory, WideResNet, load_pretrained
from tailmatch.lightning_modules.networks.inputs import views_with_categories
from tailmatch.lightning_modules.networks.module_network import as_network
from tailmatch.lightning_modules.training import length as training_length
from tailmatch.lightning_modules.training.finish_epoch import FinishEpoch
from tailmatch.lightning_modules.training.finite import check_weights
from tailmatch.lightning_modules.training.monitors import check_training_monitors
from tailmatch.lightning_modules.training.optimization import (
    FixMatchSGD,
    check_optimizer,
    parameter_groups,
    scale_rates,
)
from tailmatch.lightning_modules.training.optimizer_settings import (
    check_same_kind,
    prefer_new_settings,
    settings_of,
)
from tailmatch.lightning_modules.training.schedules import CosineDecay, StepSchedule, check_schedule
from tailmatch.lightning_modules.training.trainer_settings import check_precision, check_trainer
from tailmatch.lightning_modules.training.tuning import Tuned, Tuning, set_frozen_modes
from tailmatch.lightning_modules.training.weight_averaging import WeightAveraging
from tailmatch.lightning_modules.views import View

Batch = dict[str, dict[str, Any]]
"""A training batch: an `ImageBatch` by the name of each of the method's `streams`, to which its views are added."""


class ImageModule(SavedModule):
    """A network that is trained on views of images; a method adds the views and the training step.

    `setup` takes facts about the data (channel statistics, whether images may be mirrored) from the data module. The
    checkpoint contains them.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        network: Network class, or function that makes the network for K classes. In Python, also the network itself, or
            any `torch.nn.Module` that outputs logits or features (see `ModuleNetwork`).
        optimizer: Optimizer class, or function that makes the optimizer for a list of parameter groups.
        lr_scheduler: Schedule class, or function that makes the learning rate schedule for an optimizer. The schedule
            advances after every optimizer step.
        ema_decay: Decay in [0, 1) of the averaged weights that are evaluated; None evaluates the trained weights.
        decay_norm_and_bias: Whether the optimizer's weight decay also applies to normalization weights and biases.
        pretrained: Path or URL of weights with which a new fit begins, except for the head: a checkpoint of this
            package, a torchvision state dict, or one with names under `module.` or `encoder_q.` (see
            `load_pretrained`). A resumed or tested run does not read the file. None begins with the initial weights.
        tune: Which parts of the network are trained, and at which learning rates; None trains all alike.
    """

    streams: tuple[str, ...] = ("labeled",)
    """Names of the training streams that the method reads; the data module loads no others."""

    brings_weights: bool = False
    """Whether the weights come from the method's arguments: it is evaluated without `--ckpt_path`, and not trained."""

    reads_pseudo_labels: bool = False
    """Whether the method trains on the data module's `pseudo_labels`; any other method refuses them."""

    progress_bar: tuple[str, ...] = ("loss",)
    """Names of the training numbers that the progress bar shows."""

    class_names: list[str]
    """Names of the classes, in the order of the logits."""

    image_size: list[int] | None
    """Height and width of the images that it is evaluated on; None if they are not known."""

    def __init__(
        self,
        num_classes: int,
        *,
        network: NetworkFactory = WideResNet,
        optimizer: OptimizerCallable = FixMatchSGD,
        lr_scheduler: LRSchedulerCallable = CosineDecay,
        ema_decay: float | None = 0.999,
        decay_norm_and_bias: bool = False,
        pretrained: str | None = None,
        tune: Tuning | None = None,
    ) -> None:
        super().__init__()
        check_count("num_classes", num_classes, 2)
        self.num_classes = num_classes
        if not callable(optimizer):
            raise SettingsError(
                f"optimizer is a {type(optimizer).__name__} that is made already; it must be a class or a function "
                "that makes one of parameters, such as partial(SGD, lr=0.1)"
            )
        self.network = as_network(network, num_classes)
        self.remember("network", self.network)
        self._tuned = Tuned() if tune is None else tune.apply(self.network)
        set_frozen_modes(self, self._tuned.frozen)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.decay_norm_and_bias = decay_norm_and_bias
        self.pretrained = pretrained
        self._averaging = None if ema_decay is None else WeightAveraging(ema_decay)

    # What a method implements

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss `[]` of a step, and call `track` with the numbers to log."""

    def make_views(self, batch: Batch) -> Batch:
        """Add the method's views to a training batch on the device; torch's generator is seeded for the step before."""
        return batch

    # Set-up

    def setup(self, stage: str) -> None:
        """Take channel statistics, categories, and whether images may be mirrored, from the data module.

        Raises:
            SettingsError: The data module of a fit has pseudo-labels that the method does not read.
            NotFiniteError: Weights are NaN or infinite before anything begins.
        """
        check_weights(self, self._by_design())
        data = getattr(self.trainer, "datamodule", None)
        if data is None:
            return
        if stage == "fit" and data.pseudo_label_file is not None and not self.reads_pseudo_labels:
            raise SettingsError(
                f"pseudo_labels is {data.pseudo_label_file}, and {type(self).__name__} does not train on them: leave "
                "it out, or train SelfTraining"
            )
        if data.mean is not None:
            self.network.adapt_normalization(data.mean, data.std)
        training = torch.cat([getattr(data, name).categories for name in self.streams]) if stage == "fit" else None
        evaluated = data.evaluated(stage)
        self.network.adapt_categories(
            data.category_values, training, None if evaluated is None else evaluated.categories
        )
        for module in self.modules():
            if isinstance(module, View):
                module.adapt(data.horizontal_flip)

    def begin_fit(self) -> None:
        """Load the pretrained weights, at the start of a fit that is not resumed."""
        if self.pretrained is not None:
            self.print(load_pretrained(self.network, self.pretrained))
            self.pretrained = None  # a second fit continues from the first
            self.network.begins_trained = True
        if self._tuned.frozen and not self.network.begins_trained:
            rank_zero_warn(
                "a part of the network is frozen, and it has random weights: give pretrained weights "
                "(the network's pretrained or weights, or the method's pretrained)"
            )

    def configure_callbacks(self) -> list[Callback]:
        """Add the weight averaging, which is part of the method and begins with the weights that `begin_fit` leaves.

        This is the first hook of a fit, before any data is read, so that it also checks the trainer and its data.

        Raises:
            SettingsError: Nothing would be trained, or the trainer has what the methods cannot work with (see
                `check_trainer`); or a fit has no data module of this package.
        """
        if self._trainer is not None:
            check_precision(self._trainer)
            if self._trainer.state.fn == TrainerFn.FITTING:
                self._check_data(getattr(self._trainer, "datamodule", None))
                check_trainer(self._trainer)
        callbacks = [FinishEpoch(), _BeginFit()]
        return [*callbacks, self._averaging] if self._averaging else callbacks

    def _check_data(self, data: object) -> None:
        if not isinstance(data, LabeledUnlabeledDataModule):
            given = "loaders alone" if data is None else f"a {type(data).__name__}"
            raise SettingsError(
                f"{type(self).__name__} makes its views of images itself: it needs the images of a data module of this "
                f"package, and the data is {given}. Give trainer.fit one of tailmatch.datamodules; for images of your "
                "own, InMemory(images, targets, unlabeled=...), where images may be a torch Dataset"
            )

    @property
    def tuning(self) -> str:
        """What is trained of the network and how, in words; empty if all of it is trained alike."""
        if not self._tuned.summary:
            return ""
        counts = [(parameter.numel(), parameter.requires_grad) for parameter in self.network.parameters()]
        trained, total = (sum(count for count, is_trained in counts if is_trained or every) for every in (False, True))
        return f"{trained:,} of {total:,} parameters of the network are trained; {self._tuned.summary}"

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the network has the evaluated weights: the averages, if the method averages."""
        return self._averaging.applied(self) if self._averaging else nullcontext()

    def configure_optimizers(self) -> Any:
        """Make the optimizer and the schedule, which advances each step.

        The parameter groups are those with and without weight decay, for each learning rate (`tune`).

        Raises:
            SettingsError: The optimizer's class or `check_optimizer` refuses a value, such as a momentum of 2; the
                schedule is refused; or a training continues from the state of another kind of optimizer.
        """
        rates = {f"network.{name}": rate for name, rate in self._tuned.rates.items()}
        groups = parameter_groups(self, self.decay_norm_and_bias, rates)
        try:
            optimizer = self.optimizer(groups)
        except SettingsError:
            raise
        except ValueError as error:
            raise SettingsError(f"the optimizer cannot be made: {error}") from error
        check_optimizer(optimizer.defaults)
        scale_rates(optimizer)
        self._settings = settings_of(optimizer)
        if self.continues():
            check_same_kind(self._settings, self._settings_before, self.loaded_from())
        prefer_new_settings(optimizer, self._settings_before)
        scheduler = self.lr_scheduler(optimizer)
        check_schedule(scheduler)
        if isinstance(scheduler, StepSchedule) and scheduler.total_steps is None:
            scheduler.total_steps = self.total_steps()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def total_steps(self) -> int:
        """Return the number of optimizer steps of the training: `max_steps` or `max_epochs`, whichever ends it first.

        The trainer's `max_time` is not considered, since its number of steps is not known in advance: a training that
        it stops ends before the end of its schedule.

        Raises:
            SettingsError: The trainer sets no end.
        """
        steps = training_length.total_steps(self.trainer)
        if steps == math.inf:
            raise SettingsError(
                f"the schedule needs a length: trainer.max_steps is {self.trainer.max_steps} and trainer.max_epochs "
                f"{self.trainer.max_epochs}; set one of them, or the schedule's total_steps"
            )
        return int(steps)

    def total_epochs(self) -> float:
        """Return the number of epochs that the training begins; infinite without a known end."""
        return training_length.total_epochs(self.trainer)

    # Training

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules except frozen ones (`tune`), which stay in evaluation mode."""
        super().train(mode)
        set_frozen_modes(self, self._tuned.frozen)
        return self

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Seed torch's generator from (seed, step, rank), then make the views of a training batch."""
        if not self.trainer.training:
            return batch
        step = training_step_index(self.trainer)
        torch.manual_seed(mix_seed(global_seed(), VIEW_STREAM, step, self.global_rank))
        with torch.no_grad():
            batch = self.make_views(batch)
            return views_with_categories(self.network, batch) if self.network.takes_categories else batch

    def on_validation_end(self) -> None:
        """Let data-parallel training copy the buffers of process 0 in the next step, as it does in every other one.

        DDP leaves that out after a forward without gradient, though each process has its own statistics of BatchNorm
        again after the validation. A resumed run has those of process 0.
        """
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel):
            model.require_forward_param_sync = True

    def track(self, **values: Tensor) -> None:
        """Record numbers `[]` of a step, and log their means as `train/...` every `log_every_n_steps` steps.

        Raises:
            NotFiniteError: A number is NaN or infinite, or the gradients of every step are (see `loss_scale`).
            SettingsError: A callback watches a training number that there is none of.
        """
        if len(self._means) == 0:
            names = (*values, "lr", *(["loss_scale"] if self.trainer.precision == "16-mixed" else []))
            check_training_monitors(self.trainer, self, [f"train/{name}" for name in names])
        self._means.add(values)
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by its logger connector
        if not every or (self.trainer.global_step + 1) % every:
            return
        scale = self._check_finite()
        means = self._means.take()
        means["lr"] = torch.tensor(self.trainer.optimizers[0].param_groups[0]["lr"])
        if scale is not None:
            means["loss_scale"] = torch.tensor(scale)
        shown = {f"train/{name}": means.pop(name) for name in self.progress_bar if name in means}
        self.log_dict(shown, prog_bar=True, sync_dist=True)
        self.log_dict({f"train/{name}": value for name, value in means.items()}, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save what `SavedModule` saves, and the values of the categories."""
        super().on_save_checkpoint(checkpoint)
        if self.network.vocabulary is not None:
            checkpoint[CATEGORIES_KEY] = self.network.vocabulary

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Prepare the network for the checkpoint's categories, before its weights are loaded."""
        super().on_load_checkpoint(checkpoint)
        self.network.begins_trained = True
        self.network.take_vocabulary(checkpoint.get(CATEGORIES_KEY))
        self.pretrained = None  # a subsequent fit begins with the checkpoint's weights


class _BeginFit(Callback):
    """Callback that calls `begin_fit` at the start of a fit that is not resumed.

    `setup` is too early, since the trainer does not know yet whether the fit is resumed. A module's own `on_fit_start`
    is too late, since it runs after that of `WeightAveraging`.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is None and isinstance(pl_module, ImageModule):
            pl_module.begin_fit()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(pl_module, ImageModule) and pl_module.tuning:
            pl_module.print(f"tuning: {pl_module.tuning}")
            set_frozen_modes(pl_module, pl_module._tuned.frozen)  # whatever modes there were before the fit
