"""The base of all data modules: a labeled and an unlabeled stream, validation and test."""

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.image_data import ChannelStatistics, ImageDataModule, Loader
from tailmatch.datamodules.batches import (
    LabeledBatches,
    PoolBatches,
    Sampling,
    UnlabeledBatches,
    generator,
    global_seed,
    sampling_weights,
    training_step_index,
)
from tailmatch.datamodules.images import ImageRows, Sources, whole
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.datamodules.splitting.label_noise import LabelNoise, noise_warnings
from tailmatch.datamodules.splitting.long_tail import ClassCounts, LabeledFraction
from tailmatch.datamodules.splitting.split_warnings import duplicate_warnings, split_warnings
from tailmatch.datamodules.splitting.splits import SPLIT_STREAM, draw_split

PredictSet: TypeAlias = Literal["unlabeled", "labeled", "pool", "val", "test"]


NOISE = 2
"""Part of the split's random numbers that label noise is drawn from; 1 is that of a separate unlabeled pool."""


class LabeledUnlabeledDataModule(ImageDataModule):
    """Two training streams of `uint8` images, and two evaluation sets, drawn from `load()`.

    A subclass sets `class_names` before calling this `__init__` (so that the number of classes is known at
    once) and implements `load`; it overrides the class attributes where its images ask for it: `mean` and
    `std` of the channels in [0, 1], whether a mirrored image is valid, default holdouts.

    A training batch is `{"labeled": ImageBatch, "unlabeled": ImageBatch}`, of the streams that the method
    asks for. The unlabeled stream's `index` counts within the unlabeled set, whose images stay with process
    `index % world_size`. A third stream, `pool`, has the labeled and the unlabeled images, each once and all
    without labels, `labeled_batch_size` a step; its processes share the images in the same way.

    Args:
        class_counts: How many images per class become labeled and unlabeled; None: a tenth of every class
            labeled, the rest unlabeled.
        labeled_batch_size: Labeled images per step and process.
        unlabeled_ratio: mu, unlabeled images per labeled image in a step.
        steps_per_epoch: Training steps between two validations.
        eval_batch_size: Images per validation or test step and process.
        labeled_sampling: `uniform`, `balanced` (OverFixMatch) or `effective_number`.
        include_labeled_in_unlabeled: Also put the labeled images, without their labels, in front of the
            unlabeled set, as FixMatch does.
        val_holdout: Held out of the training pool for validation: images per class (int) or a share of every
            class (float below 1). 0 uses the data set's own validation split, if it has one. None takes the
            class attribute `default_val_holdout`, and 0 with `validate_on_test`.
        test_holdout: The same for test; None takes `default_test_holdout`.
        labeled_holdout: Labeled images of every class that become the validation set instead, as for the estimate of
            the unlabeled prior; the unlabeled and test sets are those of a run without it.
        validate_on_test: Validate on the test set, as several papers do. The best checkpoint is then chosen
            on test images: say so where you report it.
        seed: Seed of the split; None takes the training seed (`seed_everything`). The order of batches always
            follows the training seed.
        num_workers: Loader processes. 0 is the fastest for data in memory.
        pseudo_labels: File of `PseudoLabelWriter` with labels for the unlabeled images, for a method that
            trains on them (`SelfTraining`); and for the labeled ones, for one that relabels them.
        predict_set: The images that `predict` predicts: `unlabeled`, `labeled`, `pool` (labeled, then unlabeled),
            `val` or `test`.
        label_noise: Wrong labels on purpose, for the images of the labeled stream alone: `class_counts` count the
            labels after it, and held-out images (`labeled_holdout` too), the unlabeled and the test set keep
            theirs. Drawn from the split's seed. `labeled.truth` has the classes before.
    """

    mean: ChannelStatistics = (0.485, 0.456, 0.406)  # ImageNet's, torchvision's preset
    std: ChannelStatistics = (0.229, 0.224, 0.225)
    default_val_holdout: int | float = 0
    default_test_holdout: int | float = 0

    def __init__(
        self,
        *,
        class_counts: ClassCounts | None = None,
        labeled_batch_size: int = 64,
        unlabeled_ratio: int = 7,
        steps_per_epoch: int = 1024,
        eval_batch_size: int = 256,
        labeled_sampling: Sampling = "uniform",
        include_labeled_in_unlabeled: bool = False,
        val_holdout: int | float | None = None,
        test_holdout: int | float | None = None,
        labeled_holdout: int = 0,
        validate_on_test: bool = False,
        seed: int | None = None,
        num_workers: int = 0,
        pseudo_labels: str | None = None,
        predict_set: PredictSet = "unlabeled",
        label_noise: LabelNoise | None = None,
    ) -> None:
        super().__init__(eval_batch_size=eval_batch_size, num_workers=num_workers)
        for name, value in (
            ("labeled_batch_size", labeled_batch_size),
            ("unlabeled_ratio", unlabeled_ratio),
            ("steps_per_epoch", steps_per_epoch),
        ):
            if value < 1:
                raise SettingsError(f"{name} is {value}; it must be at least 1")
        if validate_on_test and (val_holdout or labeled_holdout):
            raise SettingsError(
                f"validate_on_test is true, val_holdout is {val_holdout} and labeled_holdout is {labeled_holdout}: "
                "choose where validation images come from"
            )
        self.class_counts_rule = class_counts or LabeledFraction(0.1)
        self.labeled_batch_size = labeled_batch_size
        self.unlabeled_ratio = unlabeled_ratio
        self.steps_per_epoch = steps_per_epoch
        self.labeled_sampling: Sampling = labeled_sampling
        self.include_labeled_in_unlabeled = include_labeled_in_unlabeled
        default_val = 0 if validate_on_test else self.default_val_holdout
        self.val_holdout = default_val if val_holdout is None else val_holdout
        self.test_holdout = self.default_test_holdout if test_holdout is None else test_holdout
        self.labeled_holdout = labeled_holdout
        self.validate_on_test = validate_on_test
        self.seed = seed
        self.predict_set: PredictSet = predict_set
        self.pseudo_label_file = None if pseudo_labels is None else Path(pseudo_labels)
        self.pseudo_labels: PseudoLabels | None = None  # of the unlabeled images
        self.labeled_predictions: PseudoLabels | None = None  # of the labeled ones, where the file has such rows
        self.label_noise = label_noise
        if label_noise is not None:
            label_noise.check(self.class_names)
        self._pool_digest = self._split_digest = self._pseudo_label_digest = self._noise_digest = ""

    @abstractmethod
    def load(self) -> Sources:
        """Read the images. Called once per process, after `prepare_data` ran on one of them."""

    def setup(self, stage: str) -> None:
        """Read the images and draw the split, once; read pseudo-labels for a fit."""
        if not self._split_digest:
            self._draw()
        if stage == "fit" and self.pseudo_label_file is not None and self.pseudo_labels is None:
            self._read_pseudo_labels(self.pseudo_label_file)

    def _draw(self) -> None:
        sources = self.load()
        seed = global_seed() if self.seed is None else self.seed
        split = draw_split(
            sources.train.targets,
            self.class_names,
            self.class_counts_rule,
            val_holdout=self.val_holdout,
            test_holdout=self.test_holdout,
            seed=seed,
            labeled_holdout=self.labeled_holdout,
            unlabeled_from=sources.unlabeled_from,
        )
        unlabeled = split.unlabeled
        if self.include_labeled_in_unlabeled:
            unlabeled = torch.cat([split.labeled, unlabeled])
        given = None
        if self.label_noise is not None:
            random = generator(seed, SPLIT_STREAM, NOISE)
            given = self.label_noise(sources.train.targets, self.class_names, random)[split.labeled]
            self._noise_digest = _digest(given)
        self.labeled = ImageRows(sources.train, split.labeled, given=given)
        self.unlabeled = ImageRows(sources.train, unlabeled, labeled=False)
        self.pool = ImageRows(sources.train, torch.cat([split.labeled, split.unlabeled]), labeled=False)
        self.test = ImageRows(sources.train, split.test) if self.test_holdout else _own(sources.test)
        held_out = split.labeled_holdout if self.labeled_holdout else split.val
        self.val = ImageRows(sources.train, held_out) if len(held_out) else _own(sources.val)
        if self.validate_on_test:
            self.val = self.test
        if not len(self.labeled):
            raise SettingsError("no labeled images: class_counts gives 0 for every class")
        if self.val is None:
            rank_zero_warn(
                "no validation images: the data set has no validation split, so give val_holdout, "
                "or validate_on_test: true"
            )
        self._pool_digest = _digest(sources.train.targets)
        self._split_digest = _digest(split.labeled, unlabeled, held_out, split.test)

    def _read_pseudo_labels(self, path: Path) -> None:
        file = read_pseudo_labels(path)
        try:
            self.pseudo_labels = file.align(self.unlabeled, self.class_names, beside=self.labeled)
            parts = [*vars(self.pseudo_labels).values()]
            rest = len(file.key) - int((self.pseudo_labels.label >= 0).sum())
            if rest or self.include_labeled_in_unlabeled:  # else none of its rows is labeled here
                predictions = file.align(self.labeled, self.class_names, beside=self.unlabeled)
                if (predictions.label >= 0).any():
                    self.labeled_predictions = predictions
                    parts += vars(predictions).values()
        except ValueError as error:
            raise SettingsError(f"pseudo_labels {path} does not fit the data: {error}") from error
        self._pseudo_label_digest = _digest(*(part for part in parts if part is not None))

    @property
    def class_counts(self) -> list[int]:
        """See `ImageDataModule.class_counts`."""
        return _count(self.labeled, self.num_classes)

    @property
    def height_and_width(self) -> list[int]:
        """See `ImageDataModule.height_and_width`."""
        return list(self.labeled.images.pixels.shape[-2:])

    def class_count_table(self) -> dict[str, list[int]]:
        """Images per class of each set, after `setup`; the unlabeled row holds those whose class is known."""
        sets = {
            "labeled": self.labeled,
            "unlabeled": self.unlabeled,
            "validation": self.val,
            "test": self.test,
        }
        return {name: _count(rows, self.num_classes) for name, rows in sets.items() if rows is not None}

    def warnings(self) -> list[str]:
        """What in the split will hurt, after `setup`."""
        noise = [] if self.label_noise is None else noise_warnings(self.label_noise, self.num_classes)
        sets = {"training": self.pool, "validation": self.val, "test": self.test}
        return split_warnings(self.class_count_table(), self.class_names) + noise + duplicate_warnings(sets)

    def train_dataloader(self) -> dict[str, Loader]:
        """The streams that the method trains on."""
        streams = getattr(getattr(self.trainer, "lightning_module", None), "streams", ("labeled", "unlabeled"))
        place: dict[str, Any] = {"seed": global_seed(), "step": self._step, **self._place()}
        loaders = {}
        if "labeled" in streams:
            weights = sampling_weights(self.labeled.targets, self.labeled_sampling)
            batches = LabeledBatches(
                len(self.labeled), self.labeled_batch_size, self.steps_per_epoch, weights=weights, **place
            )
            loaders["labeled"] = self._loader(self.labeled, batch_sampler=batches)
        if "unlabeled" in streams:
            size = self.labeled_batch_size * self.unlabeled_ratio
            unlabeled = UnlabeledBatches(len(self.unlabeled), size, self.steps_per_epoch, **place)
            loaders["unlabeled"] = self._loader(self.unlabeled, batch_sampler=unlabeled)
        if "pool" in streams:
            pool = PoolBatches(len(self.pool), self.labeled_batch_size, self.steps_per_epoch, **place)
            loaders["pool"] = self._loader(self.pool, batch_sampler=pool)
        return loaders

    def val_dataloader(self) -> Loader | list[Loader]:
        """The validation set, empty if there is none."""
        return self.evaluation_loader(self.val) if self.val is not None else []

    def test_dataloader(self) -> Loader:
        """The test set.

        Raises:
            SettingsError: There is none.
        """
        if self.test is None:
            raise SettingsError("no test images: the data set has no test split, so give test_holdout")
        return self.evaluation_loader(self.test)

    @property
    def predicted(self) -> ImageRows:
        """The images of `predict_set`, after `setup`.

        Raises:
            SettingsError: There are none.
        """
        sets: dict[PredictSet, ImageRows | None] = {
            "unlabeled": self.unlabeled,
            "labeled": self.labeled,
            "pool": self.pool,
            "val": self.val,
            "test": self.test,
        }
        rows = sets[self.predict_set]
        if not rows:
            filled = ", ".join(name for name, rows in sets.items() if rows)
            raise SettingsError(
                f"predict_set is {self.predict_set}, and it has no images; there are images in: {filled}"
            )
        return rows

    def evaluated(self, stage: str) -> ImageRows | None:
        """See `ImageDataModule.evaluated`."""
        if stage == "predict":
            return self.predicted
        return self.test if stage == "test" else self.val

    def state_dict(self) -> dict[str, Any]:
        """Digests of the training pool, its split and what it learns, to tell a resume or a test on other ones."""
        return {
            "pool": self._pool_digest,
            "split": self._split_digest,
            "pseudo_labels": self._pseudo_label_digest,
            "label_noise": self._noise_digest,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of another split of the same images, or a resume with other labels or pseudo-labels.

        Raises:
            SettingsError: Its labeled, unlabeled or held-out images were others, so training images would be
                mixed with evaluation images; or, where a fit goes on, its labels or pseudo-labels were.
        """
        same_pool = state_dict["pool"] == self._pool_digest
        fitting = self.trainer is not None and self.trainer.training
        if state_dict["split"] != self._split_digest and (same_pool or fitting):
            raise SettingsError(
                "the checkpoint was trained on another split of the data: use its seed (data seed or "
                f"seed_everything, here {global_seed() if self.seed is None else self.seed}), class_counts and "
                "holdouts, or start a new run"
            )
        if fitting and state_dict.get("label_noise", "") != self._noise_digest:
            raise SettingsError(
                "the checkpoint was trained with other labels than label_noise gives now: resume with the label_noise "
                "and the seed of its run, or start a new run"
            )
        if fitting and state_dict.get("pseudo_labels", "") != self._pseudo_label_digest:
            raise SettingsError(
                f"the checkpoint was trained with other pseudo_labels than {self.pseudo_label_file} has now: resume "
                "with the same file, or start a new run"
            )

    def _step(self) -> int:
        return training_step_index(self.trainer) if self.trainer is not None else 0


def _own(images: Any) -> ImageRows | None:
    return None if images is None else whole(images)


def _count(rows: ImageRows, num_classes: int) -> list[int]:
    targets = rows.targets
    counts: list[int] = torch.bincount(targets[targets >= 0], minlength=num_classes).tolist()
    return counts


def _digest(*tensors: Tensor) -> str:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.numpy().tobytes() + b"|")
    return sha.hexdigest()
