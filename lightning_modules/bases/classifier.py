"""The base of all methods that classify: evaluation, prediction, and the classes in a checkpoint."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import Self

from tailmatch.datamodules import ImageDataModule
from tailmatch.datamodules.arguments import SettingsError, check_choice, check_count, check_each
from tailmatch.datamodules.output_files import check_writable, write_json
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.checkpoints.differences import check_same_classes
from tailmatch.lightning_modules.inference.loading import load_as
from tailmatch.lightning_modules.inference.prediction import Predictions, files_of, listed_images, pixel_batches
from tailmatch.lightning_modules.inference.trust import trust_checkpoints
from tailmatch.lightning_modules.metrics import METRICS, Evaluation, LongTailMetrics, reported
from tailmatch.lightning_modules.networks.blank_image import COLORS, BlankColor, blank_logits
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tailmatch.lightning_modules.networks.inputs import network_input
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages, untagged
from tailmatch.lightning_modules.pseudo_labels.label_memory import LabelMemory
from tailmatch.lightning_modules.pseudo_labels.row_memory import RowMemory
from tailmatch.lightning_modules.training.finite import check_predictions, predictions_error
from tailmatch.lightning_modules.training.monitors import check_monitors
from tailmatch.lightning_modules.training.run_folder import run_folder
from tailmatch.lightning_modules.training.single_class import SingleClassWarning


class ImageClassifier(ImageModule):
    """A classifier with evaluation and prediction; a method adds its views and its training step.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        **kwargs: Other arguments of `ImageModule`.
    """

    balanced_evaluation: bool = False
    """Whether the evaluated logits are those of equally frequent classes; `LogitAdjustment` would adjust them twice."""

    blank: BlankColor | None = None
    """Color of the image without content whose logits are subtracted from all logits in evaluation; see `CDMAD`."""

    class_counts: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self.class_names: list[str] = [str(k) for k in range(num_classes)]
        self.image_size: list[int] | None = None
        self.register_buffer("class_counts", torch.zeros(num_classes, dtype=torch.long))
        self._annotated_counts: list[int] | None = None
        self.val_metrics = LongTailMetrics(num_classes)
        self.test_metrics = LongTailMetrics(num_classes)
        self.evaluations: dict[str, Evaluation] = {}
        self._single_class = SingleClassWarning()
        self._predicted = torch.zeros(())  # the sum of all probabilities of a prediction
        self.trained_steps = 0  # steps of the loaded checkpoint, since the trainer of a test counts none

    def setup(self, stage: str) -> None:
        """Take class names, labeled class counts and image size from the data, besides what `ImageModule` takes.

        Raises:
            SettingsError: The data has another number of classes, or a callback watches a group of classes that has
                no validation image.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if data is not None:
            self._check_number_of_classes(data)
            self.class_names = list(data.class_names)
            self.image_size = data.height_and_width
            if data.class_counts is not None:
                self.class_counts.copy_(torch.tensor(data.class_counts))
                self._annotated_counts = data.annotated_counts
            if stage == "fit" and data.val is not None:
                logged = reported(self.annotated_counts.cpu(), data.val.targets.cpu())
                check_monitors(self.trainer, self, [f"val/{name}" for name in logged])

    def configure_callbacks(self) -> list[Callback]:
        """Check a fit's number of classes and what callbacks watch, besides what `ImageModule` checks and adds.

        Raises:
            SettingsError: Nothing would be trained, the data has another number of classes, or a callback watches a
                metric that nothing logs.
        """
        callbacks = super().configure_callbacks()
        trainer = self._trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            self._check_number_of_classes(trainer.datamodule)  # type: ignore[attr-defined]  # set by its data connector
            check_monitors(trainer, self, [f"val/{name}" for name in METRICS])
        return callbacks

    def _check_number_of_classes(self, data: ImageDataModule) -> None:
        if len(data.class_names) != self.num_classes:
            raise SettingsError(
                f"num_classes is {self.num_classes}, and the data has {len(data.class_names)} classes: make the "
                "method for data.num_classes"
            )

    @property
    def annotated_counts(self) -> Tensor:
        """Counts `[K]` of the given labels, by which classes are grouped: `class_counts` without `added_labels`."""
        counts = self._annotated_counts
        return self.class_counts if counts is None else torch.tensor(counts, device=self.class_counts.device)

    def prior_in_logits(self) -> Tensor:
        """Return the class frequencies `[K]`, in any scale, that the evaluated logits contain, for `LogitAdjustment`.

        The default is the class counts of the labeled images. A method whose logits have learned others overrides it.
        """
        return self.class_counts

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the class names, the image size, whether evaluated logits are balanced, and what debiases them."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["balanced_evaluation"] = self.balanced_evaluation
        checkpoint["blank"] = self.blank
        if self._annotated_counts not in (None, self.class_counts.tolist()):
            checkpoint["annotated_counts"] = self._annotated_counts
        checkpoint["class_names"] = self.class_names
        checkpoint["image_size"] = self.image_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights that were trained on other classes or with other levels of categories.

        Make room for what the checkpoint has of each image, such as its pseudo-label.

        Raises:
            SettingsError: The checkpoint's classes differ from those of the data, or have another order.
        """
        super().on_load_checkpoint(checkpoint)
        for name, module in self.named_modules():
            if isinstance(module, LabelMemory | RowMemory):
                module.make_room(checkpoint.get("state_dict", {}), f"{name}.")
        self.trained_steps = checkpoint.get("global_step", 0)
        if checkpoint.get("balanced_evaluation") is True:  # by a remedy that need not be there in a test
            self.balanced_evaluation = True
        fits = self._trainer is not None and self._trainer.state.fn == "fit"
        counts = checkpoint.get("annotated_counts")
        if counts is not None:
            check_each("the checkpoint's annotated_counts", counts, check_count, 0, length=self.num_classes)
        if not fits:  # those of the training, also where the data is other
            self._annotated_counts = counts
        if not (fits and self.blank):  # a fit may have a remedy with another color
            self.blank = checkpoint.get("blank")
            check_choice("the checkpoint's blank", self.blank or COLORS[0], COLORS)
        check_same_classes(checkpoint.get("class_names", self.class_names), self.class_names, self.loaded_from())

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Load the method of a checkpoint, with its arguments and the weights that were evaluated.

        `tailmatch.load` does the same for a checkpoint of any method.

        Args:
            checkpoint_path: Path or URL of a checkpoint, from a run of the command line or from
                `Trainer.save_checkpoint`. No code in the file is executed.
            map_location: Device of the loaded method; None is the CPU.
            hparams_file: Leave this out: the checkpoint contains the arguments.
            strict: Leave this out: all weights are required.
            weights_only: Leave this out: only tensors and plain values are read.
            trust: Whether the file may name classes and functions outside this package, whose code then runs.
            **kwargs: Arguments that replace those of the checkpoint, and arguments that a checkpoint cannot contain
                because they are not plain data, such as `network=module`.

        Raises:
            SettingsError: The file does not exist, its method is of another class, or the method cannot be built.
        """
        if hparams_file is not None or strict is False or weights_only is False:
            raise SettingsError(
                f"{hparams_file=}, {strict=}, {weights_only=}: leave them out; a checkpoint has its arguments, all its "
                "weights are loaded, and no code of it is executed"
            )
        with trust_checkpoints(trust):
            model = load_as(cls, checkpoint_path, kwargs)
        return model if map_location is None else model.to(map_location)

    # Evaluation

    def forward(self, images: Tensor | TaggedImages) -> Tensor:
        """Compute logits `[B, K]` of images `[B, 3, H, W]` in [0, 1], which `network_input` makes of a batch."""
        logits: Tensor = self.network(images)
        if self.blank is None:
            return logits
        return logits.float() - blank_logits(self.network, self.blank, untagged(images).shape[-2:])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor] | None:
        """Update the validation metrics with a batch; return its logits `[B, K]`, or None for an empty batch."""
        return self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor] | None:
        """Update the test metrics with a batch; return its logits `[B, K]`, or None for an empty batch."""
        return self._evaluate(batch, self.test_metrics)

    def _evaluate(self, batch: dict[str, Tensor], metrics: LongTailMetrics) -> dict[str, Tensor] | None:
        """Evaluate a batch; that of a process without further images is empty."""
        images = network_input(self.network, batch)
        if not len(images):
            return None
        logits = self(images)
        metrics.update(logits, batch["target"])
        return {"logits": logits}

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Predict a batch: return its `index int64 [B]` unchanged, and `probs float32 [B, K]`."""
        probs = self(network_input(self.network, batch)).float().softmax(dim=1)
        self._predicted = self._predicted + probs.sum()  # without waiting for the device
        return {"index": batch["index"], "probs": probs}

    def on_predict_start(self) -> None:
        """Begin the sum in which a prediction that is not finite shows at the end."""
        self._predicted = torch.zeros((), device=self.device)

    def on_predict_epoch_end(self) -> None:
        """Refuse predictions that are not finite, before a writer makes its file of them.

        Raises:
            NotFiniteError: A prediction is not finite.
        """
        check_predictions(self._predicted, self, self.trainer)

    @torch.no_grad()
    def predict(
        self,
        images: object,
        *,
        categories: Mapping[str, Sequence[str | None]] | None = None,
        image_size: int | Sequence[int] | None = None,
        batch_size: int = 256,
    ) -> Predictions:
        """Predict images of any kind, with the preprocessing that the evaluation of the method used.

        Files are decoded to the same pixels as in `tailmatch predict`. Every image is cropped at its center to the
        aspect ratio of the training images, and resized to their height and width. The training or evaluation mode of
        each module is unchanged afterwards.

        Args:
            images: Path of an image file or of a folder (all images in it, at any depth, ordered by path), a PIL image,
                an array or tensor of uint8 (an image `[H, W]`, `[H, W, 3]` or `[3, H, W]`, or N images `[N, H, W, 3]`,
                `[N, 3, H, W]` or, in gray, `[N, H, W]`), or a list of these.
            categories: Categories of the images, for a network that was trained with categories: a dict from the name
                of a level to the value of each image, None where it is unknown. Without this argument, all values are
                unknown.
            image_size: Height and width in pixels, or one number for both; None takes those of the training images.
            batch_size: Number of images that pass through the network together.

        Raises:
            MissingFileError: A file or folder does not exist.
            SettingsError: An image has another type or cannot be read, or the network does not know the `categories`.
            NotFiniteError: A prediction is NaN.
        """
        check_count("batch_size", batch_size)
        items = listed_images(images)
        codes = None if categories is None else self.network.category_codes(categories, len(items))
        probs = []
        with evaluation_mode(self):
            for rows, pixels in pixel_batches(items, image_size or self.image_size, batch_size):
                batch = {"image": pixels, "index": torch.arange(rows.start, rows.stop)}
                if codes is not None:
                    batch["categories"] = codes[rows]
                probs.append(self.predict_step(batch, 0)["probs"].cpu())
        predicted = Predictions(torch.cat(probs), self.class_names, files_of(items))
        check_predictions(predicted.probs, self)
        return predicted

    def on_validation_epoch_end(self) -> None:
        """Compute the validation metrics and log them as `val/...`."""
        scalars = self._finish_evaluation("val", self.val_metrics)
        shown = "val/balanced_accuracy"
        self.log(shown, scalars.pop(shown), prog_bar=True)
        self.log_dict(scalars)

    def on_test_start(self) -> None:
        """Make sure that `test_metrics.json` can be written, before images are evaluated.

        Raises:
            OSError: The system refuses to write it.
        """
        check_writable(run_folder(self.trainer) / "test_metrics.json")

    def on_test_epoch_end(self) -> None:
        """Compute the test metrics, log them as `test/...` and write `test_metrics.json` to the run folder."""
        scalars = self._finish_evaluation("test", self.test_metrics)
        self.log_dict(scalars)
        self._write_test_metrics(run_folder(self.trainer), scalars)

    def evaluated_checkpoint(self) -> str | list[str] | None:
        """Return the path of the evaluated checkpoint; None if the weights come from a fit in this process."""
        checkpoint = self.trainer.ckpt_path
        return None if checkpoint is None else str(checkpoint)

    def _finish_evaluation(self, stage: str, metrics: LongTailMetrics) -> dict[str, Tensor]:
        """Compute and reset the metrics of `stage`.

        Raises:
            NotFiniteError: The cross-entropy is NaN or infinite. It is NaN if any probability of any image is.
        """
        self.evaluations[stage] = metrics.compute(self.annotated_counts)
        metrics.reset()
        if not bool(self.evaluations[stage].scalars["loss"].isfinite()):
            raise predictions_error(self, self.trainer)
        if not self.trainer.sanity_checking:
            images = "test images" if stage == "test" else "validation images"
            in_fit = self.trainer.state.fn == "fit"
            self._single_class.look_at(self.evaluations[stage], self.class_names, images, in_fit)
        return {f"{stage}/{name}": value for name, value in self.evaluations[stage].scalars.items()}

    @rank_zero_only
    def _write_test_metrics(self, folder: Path, scalars: dict[str, Tensor]) -> None:
        recall = self.evaluations["test"].recall.tolist()
        record = {
            "checkpoint": self.evaluated_checkpoint(),
            "step": self.trainer.global_step or self.trained_steps,
            "metrics": {name.removeprefix("test/"): value.item() for name, value in scalars.items()},
            "recall": {name: None if r != r else r for name, r in zip(self.class_names, recall, strict=True)},
        }
        write_json(folder / "test_metrics.json", record)
