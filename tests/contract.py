"""Shared by the contract tests: tables of methods and remedies, small runs of them, and comparisons of states."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.precision import Precision
from torch.nn import functional

from tailmatch.callbacks import (
    CDMAD,
    DARP,
    DebiasPL,
    DistributionAlignment,
    EarlyLearningCurves,
    FlexDA,
    LastEvaluations,
    PseudoLabelGenerator,
    PseudoLabelMonitor,
    SelfTrainingReport,
)
from tailmatch.callbacks.checkpoints import LastCheckpoint
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.datamodules.images import Sources
from tailmatch.lightning_modules import (
    ACR,
    ADELLO,
    BOAT,
    CCL,
    CPE,
    CPG,
    DASO,
    ELR,
    SAW,
    SCSSL,
    UDA,
    AdaMatch,
    BaCon,
    ClassifierRetraining,
    CoSSL,
    DyTrim,
    FixMatch,
    FixMatchABC,
    FixMatchRetraining,
    FreeMatch,
    ImageClassifier,
    MeanTeacher,
    MetaExpert,
    MixMatch,
    MoCoPretraining,
    PostHocClassifier,
    Remix,
    ReMixMatch,
    ReMixMatchABC,
    RotationPretraining,
    SelfTraining,
    SemiSupervisedClassifier,
    SimiS,
    SimMatch,
    SimMixMatch,
    SimPro,
    Supervised,
)
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.checkpoints.checkpoint_io import AtomicCheckpointIO
from tailmatch.lightning_modules.heads import ComputedHead
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet, NetworkFactory
from tailmatch.lightning_modules.weightings import (
    CurriculumThresholds,
    GaussianWeights,
    HeadShareThresholds,
    SelfAdaptiveThresholds,
    Weighting,
)


@dataclass(frozen=True)
class Method:
    """The settings of a small run of a method.

    Attributes:
        arguments: Arguments of its class.
        companions: Makers of the callbacks without which it does not train.
        begins_with_checkpoint: Whether it takes the network of another run, as its argument `checkpoint`.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    companions: Sequence[Callable[[], Callback]] = ()
    begins_with_checkpoint: bool = False


def weighted(name: str, weighting: Callable[[], Weighting], base: type[FixMatch] = FixMatch) -> type[FixMatch]:
    """Make a class of FixMatch, or of a method on it, with a weighting, which runs as a method does."""

    def begin(self: FixMatch, num_classes: int, **kwargs: Any) -> None:
        base.__init__(self, num_classes, weighting=weighting(), **kwargs)

    return type(name, (base,), {"__init__": begin, "__module__": __name__})


# Named here, so that other processes find them.
Adsh = weighted("Adsh", partial(HeadShareThresholds, 2, 2))
FlexMatch = weighted("FlexMatch", CurriculumThresholds)
FreeMatchOfQuantile = weighted("FreeMatchOfQuantile", partial(SelfAdaptiveThresholds, 0.5, quantile=0.8), FreeMatch)
SoftMatch = weighted("SoftMatch", partial(GaussianWeights, 0.5))


class FilledSimiS(SimiS):
    """SimiS that begins as if all labels were those of one class, since images are added where counts differ."""

    def begin_fit(self) -> None:
        super().begin_fit()
        self.shares.copy_(functional.one_hot(self.class_counts.argmax(), self.num_classes))


METHODS: dict[type[ImageClassifier], Method] = {
    ACR: Method({"threshold": 0.2, "warmup_steps": 2, "every": 2}),
    ADELLO: Method({"threshold": 0.2, "complementary_start": 0.3}),
    Adsh: Method({"threshold": 0.13}),
    AdaMatch: Method({"momentum": 0.5, "batches": 3}),
    BaCon: Method({"threshold": 0.2, "balanced_threshold": 0.1, "contrast_threshold": 0.11, "contrast_start": 0.3}),
    BOAT: Method({"threshold": 0.2, "momentum": 0.9}),
    CCL: Method({"threshold": 0.25, "energy_threshold": 2.1, "tau": 0.5, "warmup_steps": 1, "every": 2}),
    CPE: Method({"threshold": 0.1}),
    CPG: Method({"threshold": 0.13, "warmup_steps": 1, "every": 3, "least_votes": 1}),
    ClassifierRetraining: Method(begins_with_checkpoint=True),
    DyTrim: Method({}, [partial(CDMAD, warmup_epochs=1)]),
    ELR: Method(),
    CoSSL: Method({"threshold": 0.13, "lambda_u": 0.5, "warmup": 0.3, "teacher_steps": 4}),
    DASO: Method({"threshold": 0.13, "warmup_steps": 2, "every": 2, "queue_size": 7, "similarity_temperature": 0.5}),
    FixMatch: Method({"threshold": 0.2}),
    FixMatchABC: Method({"threshold": 0.2, "balanced_threshold": 0.1}),
    FixMatchRetraining: Method({"threshold": 0.2}, begins_with_checkpoint=True),
    FlexMatch: Method({"threshold": 0.13}),
    FreeMatchOfQuantile: Method({"lambda_fairness": 0.5}),
    MetaExpert: Method({"threshold": 0.1, "start_epoch": 1}),
    MeanTeacher: Method({"lambda_u": 5.0, "rampup": 0.0}),
    MixMatch: Method(),
    MoCoPretraining: Method({"queue_size": 20, "norm_splits": 2}),
    ReMixMatch: Method({"strong_views": 2, "align": False}),  # alignment is among the remedies
    ReMixMatchABC: Method({"strong_views": 2, "align": False, "balanced_threshold": 0.1}),
    Remix: Method(),
    RotationPretraining: Method(),
    SAW: Method({"threshold": 0.12, "every": 3}),
    SCSSL: Method({"threshold": 0.1, "lambda_heads": 0.5, "estimation_epochs": 1, "bias_limit": 0.0}),
    SelfTraining: Method(
        {"relabel_threshold": 0.12}, [partial(PseudoLabelGenerator, every_n_epochs=1), SelfTrainingReport]
    ),
    SimMatch: Method({"threshold": 0.12, "align": False, "warmup_steps": 1}),
    SimMixMatch: Method(),
    SimPro: Method({"threshold": 0.2, "every": 2}),
    FilledSimiS: Method({"threshold": 0.2, "lambda_u": 0.1}),
    SoftMatch: Method(),
    Supervised: Method(),
    UDA: Method({"threshold": 0.12, "annealing": "linear"}),
}
"""Every method with the settings of a small run. A new method is one line."""


@dataclass(frozen=True)
class Remedy:
    """A callback that changes the training of some methods.

    Attributes:
        make: Makes it anew, such that it acts within a small run. Its class has the remedy's name.
        methods: Base class of the methods that it works with.
        corrects_prior: Whether it is refused for methods whose own logits are balanced.
        refused_for: Other methods that it is refused for.
    """

    make: Callable[[], Callback]
    methods: type[ImageClassifier] = SemiSupervisedClassifier
    corrects_prior: bool = False
    refused_for: tuple[type[ImageClassifier], ...] = ()

    def works_with(self, method: type[ImageClassifier]) -> bool:
        """Tell whether a training of the method may have it."""
        refused = issubclass(method, self.refused_for) or (self.corrects_prior and method.balanced_evaluation)
        return issubclass(method, self.methods) and not refused


REMEDIES: dict[str, Remedy] = {
    "CDMAD": Remedy(partial(CDMAD, warmup_epochs=1), corrects_prior=True),
    "DARP": Remedy(partial(DARP, warmup_epochs=1, refine_every=2)),
    "DebiasPL": Remedy(partial(DebiasPL, 0.8, momentum=0.5), corrects_prior=True, refused_for=(ADELLO,)),
    "DistributionAlignment": Remedy(
        partial(DistributionAlignment, list(range(1, 11)), batches=5), refused_for=(ADELLO,)
    ),
    "FlexDA": Remedy(partial(FlexDA, momentum=0.9, alpha_min=0.5), corrects_prior=True),
}
"""Every remedy that changes the training. A new remedy is one line."""

WITHOUT_STATE = ("CDMAD",)
"""The remedies whose training is a function of the weights and the step alone."""

NO_REMEDY = "no remedy"

MODES = (
    "saved in mid-epoch",
    "saved at the end of an epoch",
    "saved on the last step of an epoch",
    "categories",
    "two processes",
    "bf16-mixed",
    "GPU",
    "16-mixed",
)
"""The modes in which every method runs."""

EXHAUSTIVE_MODES = ("saved on the last step of an epoch", "bf16-mixed")
"""Modes that `make test` runs for the methods of `COMMON` alone: the others that are alike are nearly as strict."""

COMMON = (FixMatch, MixMatch, ReMixMatch)
"""Methods that stand for the others in the tests of a remedy, and in `EXHAUSTIVE_MODES`."""

Case = tuple[type[ImageClassifier], str]
"""A method and the name of a remedy, or `NO_REMEDY`."""


def pairs() -> list[Case]:
    """List DARP with every method that it works with, and every other remedy with those of `COMMON`.

    A remedy that works with none of these has all methods that it works with.
    """
    working = {name: [method for method in METHODS if remedy.works_with(method)] for name, remedy in REMEDIES.items()}
    chosen = {name: [method for method in methods if method in COMMON] for name, methods in working.items()}
    return [
        (method, name)
        for name, methods in working.items()
        for method in (methods if name == "DARP" else chosen[name] or methods)
    ]


def cases(mode: str) -> list[Case]:
    """List the cases of a mode: every method alone, and every remedy with one method, which changes with the mode.

    So every pair of a method and a remedy runs in some mode, without every pair in every mode. With many methods, it
    takes more than one of them in a mode for each to have its turn.
    """
    fitting = [method for method in METHODS if mode != "categories" or not issubclass(method, Pretraining)]
    selected = [(method, NO_REMEDY) for method in fitting]
    for remedy in REMEDIES:
        turns = [case for case in pairs() if case[1] == remedy]
        count = min(len(turns), max(1, math.ceil(len(turns) / len(MODES))))
        first = count * MODES.index(mode)
        selected += [turns[(first + turn) % len(turns)] for turn in range(count)]
    return selected


def stands_for_itself(method: Any, more: Sequence[Any]) -> bool:
    """Tell whether a method is none of those that stand for the others."""
    return method not in COMMON


def is_exhaustive(method: Any, more: Sequence[Any]) -> bool:
    """Tell whether `make test` leaves a row to `make test-all`."""
    return stands_for_itself(method, more) and not set(more).isdisjoint(EXHAUSTIVE_MODES)


def each(rows: Iterable[Any] = METHODS, exhaustive: Callable[[Any, Sequence[Any]], bool] = is_exhaustive) -> list[Any]:
    """Make test parameters with readable names from rows, each a method, or a tuple that begins with one.

    They are grouped by method: of the tests that read the same runs, one process of pytest-xdist gets all.
    """
    made = []
    for row in rows:
        method, *more = row if isinstance(row, tuple) else (row,)
        name = "-".join([method.__name__, *(value for value in more if value != NO_REMEDY)])
        marks = [pytest.mark.xdist_group(method.__name__)]
        if exhaustive(method, more):
            marks.append(pytest.mark.exhaustive)
        made.append(pytest.param(method, *more, id=name, marks=marks))
    return made


plain_network = partial(CifarResNet, depth=8)
"""A factory of a small network that reads images only."""


def category_network(num_classes: int) -> CategoryNetwork:
    """A small network that reads the categories of `TaggedDigits`."""
    return CategoryNetwork(num_classes, ["shade", "side"], plain_network, embedding_dim=3, level_dropout=0.2)


class TaggedDigits(Digits):
    """Digits with two levels of categories: the brightness, and the brighter half, which is unknown for some."""

    category_values = {"side": ["left", "right"], "shade": ["dark", "gray", "light"]}

    def load(self) -> Sources:
        """See `Digits.load`."""
        train = super().load().train
        pixels = torch.as_tensor(train.pixels).float().mean(dim=1)
        left, right = (half.mean(dim=(1, 2)) for half in pixels.chunk(2, dim=2))
        bright = left + right
        shade = torch.bucketize(bright, bright.quantile(torch.tensor([1 / 3, 2 / 3])))
        side = (right > left).long()
        side[::5] = -1
        return Sources(train=replace(train, categories=torch.stack([side, shade], dim=1)))


def entry(method: Any) -> Method:
    """Look up the settings of a method, or of a method in a `partial`."""
    return METHODS.get(method.func if isinstance(method, partial) else method, Method())


def arguments(method: Any, folder: Path, network: NetworkFactory = plain_network) -> dict[str, Any]:
    """Collect the arguments of a small run of a method, with the checkpoint that it begins with if it needs one."""
    own = {"ema_decay": 0.5, **entry(method).arguments, **getattr(method, "keywords", {})}
    return {**own, "checkpoint": source_checkpoint(folder, network)} if entry(method).begins_with_checkpoint else own


def source_checkpoint(folder: Path, network: NetworkFactory = plain_network) -> str:
    """Save a network with random weights, the same in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = network(10)
        if made.takes_categories:
            made.adapt_categories({"shade": ["light", "dark"], "side": ["right"]}, torch.tensor([[0, 0], [1, -1]]))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"source-{os.getpid()}.ckpt"
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    torch.save({"state_dict": state, "categories": made.vocabulary}, file)
    return str(file)


def post_hoc(checkpoint: str, head: ComputedHead) -> Any:
    """Make a method with a computed head for `run`; it is not in `METHODS`, since its fit is one step."""

    def made(num_classes: int, network: Any, ema_decay: float) -> PostHocClassifier:
        return PostHocClassifier(num_classes, checkpoint, head, network=network)

    return made


STEPS_PER_EPOCH, EPOCHS = 4, 3


def callbacks_of(remedy: str) -> list[Callback]:
    """Make the callbacks of a remedy, and the reports whose state depends on it."""
    if remedy == NO_REMEDY:
        return []
    return [REMEDIES[remedy].make(), PseudoLabelMonitor(), LastEvaluations(2), EarlyLearningCurves()]


class Killed(Exception):
    """The exception that `Kill` raises."""


class Kill(Callback):
    """A callback that stops the run with an exception after a number of steps, as a kill would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.after:
            raise Killed


class Log(Logger):
    """A logger that keeps what is logged, with all bits: the step, the name and the value of each number."""

    name = version = "log"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[int | None, str, str]] = []
        self.saved: dict[str, int] = {}  # the number of entries before the newest checkpoint of each folder

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.entries += [(step, name, float(value).hex()) for name, value in metrics.items()]

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self.saved[Path(checkpoint_callback.dirpath).name] = len(self.entries)


def prepare(
    method: Any,
    folder: Path,
    *callbacks: Callback,
    network: NetworkFactory = plain_network,
    accelerator: str = "cpu",
    precision: Precision | None = None,
    logger: Log | bool = False,
    labeled_batch_size: int = 6,
    **trainer: Any,
) -> tuple[Trainer, ImageClassifier, Digits]:
    """Make a trainer of a few steps, a model of the method, and digits (with categories if the network reads them)."""
    seed_everything(3, verbose=False)
    data = (TaggedDigits if network is category_network else Digits)(
        image_size=8,
        class_counts=ListedCounts([4] * 10, [6] * 10),
        labeled_batch_size=labeled_batch_size,
        unlabeled_ratio=2,
        steps_per_epoch=STEPS_PER_EPOCH,
        val_holdout=2,
        test_holdout=3,
    )
    model = method(num_classes=10, network=network, **arguments(method, folder, network))
    made = Trainer(
        max_epochs=EPOCHS,
        accelerator=accelerator,
        default_root_dir=folder,
        callbacks=[*(companion() for companion in entry(method).companions), *callbacks],
        plugins=[AtomicCheckpointIO(), *([precision] if precision else [])],
        logger=logger,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=3,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    )
    return made, model, data


def run(method: Any, folder: Path, *callbacks: Callback, ckpt: Path | None = None, **options: Any) -> Trainer:
    """Train a method for a few steps; for the options see `prepare`."""
    trainer, model, data = prepare(method, folder, *callbacks, **options)
    trainer.fit(model, data, ckpt_path=ckpt)
    return trainer


class Runs:
    """Runs on one processor that several tests share; each is done once.

    Their folders hold a checkpoint of the end (`whole`), or those of a run that is killed after 10 steps: in the middle
    of the last epoch, with the checkpoints that `SAVINGS` leave.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs: dict[Path, Log] = {}  # of each folder's fit
        self.whole = cache(self._whole)
        self.killed = cache(self._killed)

    def _whole(
        self, method: type[ImageClassifier], remedy: str = NO_REMEDY, network: NetworkFactory = plain_network
    ) -> tuple[Path, dict[str, float]]:
        """Return the folder of a whole run, and the metrics of a test right after the training."""
        folder, log = self._new_folder()
        callbacks = [*callbacks_of(remedy), at_epoch_ends(folder)]
        trainer, model, data = prepare(method, folder, *callbacks, network=network, logger=log)
        trainer.fit(model, data)
        trainer.loggers = []
        [metrics] = trainer.test(model, data, verbose=False)
        return folder, dict(metrics)

    def _killed(
        self, method: type[ImageClassifier], remedy: str = NO_REMEDY, network: NetworkFactory = plain_network
    ) -> Path:
        """Return the folder that holds one folder for each of `SAVINGS`."""
        folder, log = self._new_folder()
        savings = [saving(folder / name) for name, saving in SAVINGS.items()]
        with pytest.raises(Killed):
            run(method, folder, *callbacks_of(remedy), *savings, Kill(10), network=network, logger=log)
        return folder

    def _new_folder(self) -> tuple[Path, Log]:
        folder = Path(mkdtemp(dir=self.folder))
        self.logs[folder] = Log()
        return folder, self.logs[folder]


def last(folder: Path, **kwargs: Any) -> LastCheckpoint:
    """Make a callback that saves `folder/last.ckpt`."""
    return LastCheckpoint(dirpath=folder, filename="last", enable_version_counter=False, **kwargs)


def at_epoch_ends(folder: Path) -> LastCheckpoint:
    """Make a callback that saves `folder/last.ckpt` after every epoch."""
    return last(folder, every_n_epochs=1, save_on_train_epoch_end=True)


SAVINGS: dict[str, Callable[[Path], LastCheckpoint]] = {
    "saved in mid-epoch": partial(last, every_n_train_steps=7),
    "saved at the end of an epoch": at_epoch_ends,
    "saved on the last step of an epoch": partial(last, every_n_train_steps=8),
}
"""When a run is saved, and after how many steps; in these runs DARP does not refine at step 7."""


def saved(folder: Path) -> dict[str, Any]:
    """Read the checkpoint in a folder."""
    state: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return state


def assert_same_training(
    whole: dict[str, Any],
    resumed: dict[str, Any],
    remedy: str = NO_REMEDY,
    reports: Sequence[str] = ("LastEvaluations", "EarlyLearningCurves"),
) -> None:
    """Assert that two checkpoints hold the same bits, also those of the remedy and of the reports, if there are any."""
    for part in ("state_dict", "trained_weights", "optimizer_states", "lr_schedulers", "class_names", "categories"):
        if part in whole or part in resumed:
            assert_same(whole[part], resumed[part], part)
    for callback in () if remedy == NO_REMEDY else (remedy, *reports):
        both = [state["callbacks"].get(callback) for state in (whole, resumed)]  # Lightning saves no empty state
        assert both != [None, None] or callback in WITHOUT_STATE, callback
        assert_same(*both, callback)


def assert_same(a: Any, b: Any, where: str) -> None:
    """Assert that two nested structures of tensors and plain values are equal."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{number}]")
    else:
        assert a == b, where


def differs(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Tell whether any tensor of two state dicts differs."""
    return any(not torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
