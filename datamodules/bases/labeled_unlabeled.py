"""The base of data modules for training: a labeled and an unlabeled stream, validation and test."""

from abc import abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.arguments import SettingsError, check_choice, check_count, check_names
from tailmatch.datamodules.bases.image_data import ChannelStatistics, ImageDataModule, Loader
from tailmatch.datamodules.bases.streams import (
    OnDevice,
    Positions,
    check_on_device,
    fetched,
    rows_on_device,
    training_streams,
)
from tailmatch.datamodules.batches import Sampling, generator, global_seed, training_step_index
from tailmatch.datamodules.images import ImageRows, Sources, whole
from tailmatch.datamodules.pseudo_labels.added import AddedLabels
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.datamodules.pseudo_labels.matching import within
from tailmatch.datamodules.splitting.digests import DataDigests, digest
from tailmatch.datamodules.splitting.label_noise import LabelNoise, noise_warnings
from tailmatch.datamodules.splitting.long_tail import ClassCounts, LabeledFraction
from tailmatch.datamodules.splitting.split_warnings import duplicate_warnings, name_warnings, split_warnings
from tailmatch.datamodules.splitting.splits import SPLIT_STREAM, check_holdout, draw_split

PredictSet: TypeAlias = Literal["unlabeled", "labeled", "pool", "val", "test"]


NOISE = 2
"""The part of the split's random stream that label noise is drawn from; 1 is that of a separate unlabeled pool."""


class LabeledUnlabeledDataModule(ImageDataModule):
    """A data module that draws two training streams of `uint8` images and two evaluation sets from `load()`.

    A subclass sets `class_names` before it calls this `__init__` (so that the number of classes is known at once) and
    implements `load`. It overrides class attributes that do not fit its images: `mean` and `std` of the channels in
    [0, 1], `horizontal_flip` (whether a mirrored image is valid) and the default holdouts.

    A training batch is `{"labeled": ImageBatch, "unlabeled": ImageBatch}`, with the streams that the method asks for.
    The `index` of the unlabeled stream counts within the unlabeled set, whose images stay with process
    `index % world_size`. A third stream, `pool`, has the labeled and the unlabeled images, each once and all without
    labels, `labeled_batch_size` a step; the processes share them in the same way. A fourth, `balanced`, has
    `labeled_batch_size` labeled images beside those of the first, drawn such that each class is equally likely.

    Args:
        class_counts: How many images of each class become labeled and unlabeled. None: `LabeledFraction`, a tenth of
            each class labeled and the rest unlabeled.
        labeled_batch_size: The number of labeled images per step and process.
        unlabeled_ratio: The number of unlabeled images per labeled image in a step (mu in FixMatch).
        steps_per_epoch: The number of training steps between two validations.
        eval_batch_size: The number of images per validation, test or prediction step and process.
        labeled_sampling: How labeled images are drawn: `uniform` gives each image once per pass over the data,
            `balanced` makes each class equally likely (OverFixMatch), `effective_number` weighs classes by their
            effective number of samples (Cui et al. 2019).
        include_labeled_in_unlabeled: Whether the labeled images are also in the unlabeled set, in front and without
            their labels, as in FixMatch.
        val_holdout: How many images of the training pool are held out for validation: a number for each class (int) or
            a share of each class (float below 1). 0: the data set's own validation split, if it has one. None: the
            default of the data set, or 0 if `validate_on_test` is true.
        test_holdout: How many images of the training pool are held out for the test, like `val_holdout`. 0: the data
            set's own test split. None: the default of the data set.
        labeled_holdout: The number of labeled images of each class that become the validation set instead, as the
            estimate of the unlabeled prior needs it. The unlabeled and the test set do not change.
        validate_on_test: Whether validation uses the test set, as in several papers. The best checkpoint is then chosen
            on test images: say so where you report its results.
        seed: The seed of the split. None: the training seed (`seed_everything`). The order of batches always follows
            the training seed.
        num_workers: The number of loader processes. 0 is the fastest for data in memory.
        on_device: Whether the training images are copied to the GPU once, in place of a copy of each batch. `auto`: if
            they take a tenth of its memory at most. Images that are decoded anew for each batch stay on the disk.
        pseudo_labels: The path of a file written by `PseudoLabelWriter`, with labels for the unlabeled images
            (`SelfTraining` trains on them) and, if they are to be relabeled, for the labeled images.
        predict_set: The set that `predict` predicts: `unlabeled`, `labeled`, `pool` (labeled, then unlabeled), `val` or
            `test`.
        label_noise: A rule that gives labeled images wrong labels on purpose, drawn from the split's seed. The numbers
            of images by class (`data.class_counts`) count the labels after the noise. Held-out images (also those of
            `labeled_holdout`), the unlabeled and the test set keep their labels; `labeled.truth` has the classes before
            the noise.
        added_labels: Unlabeled images that join the labeled set with a pseudo-label, as in CReST. They count in
            `data.class_counts`; `annotated` has the labeled images without them.

    Raises:
        SettingsError: An argument is out of its domain, `validate_on_test` is combined with a holdout for validation,
            or `added_labels` with `pseudo_labels` or `label_noise`.
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
        on_device: OnDevice = "auto",
        pseudo_labels: str | None = None,
        predict_set: PredictSet = "unlabeled",
        label_noise: LabelNoise | None = None,
        added_labels: AddedLabels | None = None,
    ) -> None:
        super().__init__(eval_batch_size=eval_batch_size, num_workers=num_workers)
        for name, value in (
            ("labeled_batch_size", labeled_batch_size),
            ("unlabeled_ratio", unlabeled_ratio),
            ("steps_per_epoch", steps_per_epoch),
        ):
            check_count(name, value)
        check_choice("labeled_sampling", labeled_sampling, get_args(Sampling))
        check_count("labeled_holdout", labeled_holdout, 0)
        check_on_device(on_device)
        for name, holdout in (("val_holdout", val_holdout), ("test_holdout", test_holdout)):
            if holdout is not None:
                check_holdout(name, holdout)
        check_choice("predict_set", predict_set, get_args(PredictSet))
        if validate_on_test and (val_holdout or labeled_holdout):
            raise SettingsError(
                f"validate_on_test is true, val_holdout is {val_holdout} and labeled_holdout is {labeled_holdout}: "
                "choose where validation images come from"
            )
        if seed is not None:
            check_count("seed", seed, 0)
        check_names("class_names", self.class_names)
        if len(self.class_names) < 2:
            raise SettingsError(f"the classes are {self.class_names}; a classifier needs two or more")
        if not isinstance(class_counts, ClassCounts | None):
            raise SettingsError(f"class_counts is {class_counts!r}; it must be a rule, such as LabeledFraction(0.1)")
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
        self.on_device: OnDevice = on_device
        self.seed = seed
        self.predict_set: PredictSet = predict_set
        self.pseudo_label_file = None if pseudo_labels is None else Path(pseudo_labels)
        self.pseudo_labels: PseudoLabels | None = None  # those of the unlabeled images
        self.labeled_predictions: PseudoLabels | None = None  # those of the labeled images, if the file has any
        self.label_noise = label_noise
        if label_noise is not None:
            label_noise.check(self.class_names)
        if added_labels is not None:
            added_labels.check_alone(pseudo_labels=pseudo_labels, label_noise=label_noise)
        self.added_labels = added_labels
        self.unlabeled_from: int | None = None  # see `Sources`
        self._digests = DataDigests()
        self._there: dict[str, ImageRows] = {}  # those on the GPU

    @abstractmethod
    def load(self) -> Sources:
        """Read the images; called once per process, after `prepare_data` ran on one of them."""

    def setup(self, stage: str) -> None:
        """Read the images and draw the split, once; read pseudo-labels for a fit."""
        if not self._digests.split:
            self._draw()
        if stage == "fit" and self.pseudo_label_file is not None and self.pseudo_labels is None:
            self._read_pseudo_labels(self.pseudo_label_file)

    def _draw(self) -> None:
        sources = self.load()
        self.unlabeled_from = sources.unlabeled_from
        seed = self._split_seed()
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
            self._digests.label_noise = digest(given)
        self.annotated = self.labeled = ImageRows(sources.train, split.labeled, given=given)
        self.unlabeled = ImageRows(sources.train, unlabeled, labeled=False)
        self.pool = ImageRows(sources.train, torch.cat([split.labeled, split.unlabeled]), labeled=False)
        self.test = ImageRows(sources.train, split.test) if self.test_holdout else _own(sources.test)
        held_out = split.labeled_holdout if self.labeled_holdout else split.val
        self.val = ImageRows(sources.train, held_out) if len(held_out) else _own(sources.val)
        if self.validate_on_test:
            self.val = self.test
        if not len(self.labeled):
            raise SettingsError(
                f"no labeled images: class_counts gives 0 for every class of what val_holdout {self.val_holdout:g} and "
                f"test_holdout {self.test_holdout:g} leave"
            )
        if self.val is None:
            rank_zero_warn(
                "no validation images: the data set has no validation split, so give val_holdout, "
                "or validate_on_test: true"
            )
        if self.added_labels is not None:
            self._add_labels(self.added_labels, ImageRows(sources.train, split.unlabeled, labeled=False))
        self._digests.pool = digest(sources.train.targets)
        self._digests.split = digest(split.labeled, unlabeled, held_out, split.test)

    def _add_labels(self, added: AddedLabels, unlabeled: ImageRows) -> None:
        places, labels = added.read(self.annotated, unlabeled, self.class_names)
        rows = torch.cat([self.annotated.rows, unlabeled.rows[places]])
        given = torch.cat([self.annotated.targets, labels])
        self.labeled = ImageRows(unlabeled.images, rows, given=given, noisy=False)
        self._digests.added_labels = digest(rows, given)

    def _read_pseudo_labels(self, path: Path) -> None:
        file = read_pseudo_labels(path)
        try:
            file = within(file, self.unlabeled.images)
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
        self._digests.pseudo_labels = digest(*(part for part in parts if part is not None))

    @property
    def balanced(self) -> ImageRows:
        """The labeled images, as those of the stream `balanced`."""
        return self.labeled

    @property
    def class_counts(self) -> list[int]:
        """See `ImageDataModule.class_counts`; images of `added_labels` count as well."""
        return _count(self.labeled, self.num_classes)

    @property
    def annotated_counts(self) -> list[int]:
        """The class counts of the labeled images, without those of `added_labels`."""
        return _count(self.annotated, self.num_classes)

    @property
    def labeled_in_front(self) -> int:
        """The number of labeled images that the unlabeled set begins with, by `include_labeled_in_unlabeled`."""
        return len(self.annotated) if self.include_labeled_in_unlabeled else 0

    @property
    def height_and_width(self) -> list[int]:
        """See `ImageDataModule.height_and_width`."""
        return list(self.labeled.images.pixels.shape[-2:])

    def class_count_table(self) -> dict[str, list[int]]:
        """Count the images of each class in each set, after `setup`; unlabeled images count if their class is known."""
        sets = {
            "labeled": self.labeled,
            "unlabeled": self.unlabeled,
            "validation": self.val,
            "test": self.test,
        }
        return {name: _count(rows, self.num_classes) for name, rows in sets.items() if rows is not None}

    def warnings(self) -> list[str]:
        """Warn of faults after `setup`: strange class names, classes of few images, duplicates, much label noise."""
        noise = [] if self.label_noise is None else noise_warnings(self.label_noise, self.num_classes)
        sets = {"training": self.pool, "validation": self.val, "test": self.test}
        names = name_warnings(self.class_names)
        return names + split_warnings(self.class_count_table(), self.class_names) + noise + duplicate_warnings(sets)

    def train_dataloader(self) -> dict[str, Loader]:
        """Load the streams that the method trains on."""
        names = getattr(getattr(self.trainer, "lightning_module", None), "streams", ("labeled", "unlabeled"))
        streams = training_streams(self, names, seed=global_seed(), step=self._step, **self._place())
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        self._there = rows_on_device(streams, device, self.on_device)
        return {
            name: self._loader(Positions(stream.rows) if self._there else stream.rows, batch_sampler=stream.batches)
            for name, stream in streams.items()
        }

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to the device, or fetch it there if the images of the training lie on it."""
        moved = super().transfer_batch_to_device(batch, device, dataloader_idx)
        training = self.trainer is not None and self.trainer.training
        return fetched(self._there, moved) if training and self._there else moved

    def teardown(self, stage: str) -> None:
        """Free the images on the device."""
        self._there = {}

    def val_dataloader(self) -> Loader | list[Loader]:
        """Load the validation set; an empty list if there is none."""
        return self.evaluation_loader(self.val) if self.val is not None else []

    def test_dataloader(self) -> Loader:
        """Load the test set.

        Raises:
            SettingsError: There are no test images.
        """
        if self.test is None:
            raise SettingsError("no test images: the data set has no test split, so give test_holdout")
        return self.evaluation_loader(self.test)

    @property
    def predicted(self) -> ImageRows:
        """The images of `predict_set`, after `setup`.

        Raises:
            SettingsError: The set has no images.
        """
        sets: dict[PredictSet, ImageRows | None] = {
            "unlabeled": self.unlabeled,
            "labeled": self.annotated,
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
        """Save digests of the training pool, the split and the labels, to notice a resume or test with other ones."""
        return asdict(self._digests)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of another split of the same images, or a resume with other labels; see `DataDigests`."""
        fitting = self.trainer is not None and self.trainer.training
        self._digests.check(state_dict, fitting, self._split_seed(), self.pseudo_label_file)

    def _split_seed(self) -> int:
        return global_seed() if self.seed is None else self.seed

    def _step(self) -> int:
        return training_step_index(self.trainer) if self.trainer is not None else 0


def _own(images: Any) -> ImageRows | None:
    return None if images is None else whole(images)


def _count(rows: ImageRows, num_classes: int) -> list[int]:
    targets = rows.targets
    counts: list[int] = torch.bincount(targets[targets >= 0], minlength=num_classes).tolist()
    return counts
