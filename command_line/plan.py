"""Propose the settings of a first training on a user's images, with the reason of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tailmatch.datamodules.files.survey import Survey, fewest

SIZES = (32, 48, 64, 96, 128, 160, 192, 224)
"""The image sizes to choose from, in pixels."""

MOST_PIXELS = {"cpu": 96, "gpu": 224}

LEAST_IMAGES = 3
"""The images that a class needs to have one each for training, validation and test."""

LONG_TAIL = 3
"""The ratio of the largest to the smallest class from which a remedy for class imbalance is proposed."""

EPOCHS = 10

FEW_STEPS = 1000
"""With fewer steps, the head of a pretrained network alone is trained, whose steps are cheaper: in 200 steps of
`studies/own_images.yaml`, all of the network found more rare classes, and its top-1 accuracy was lower."""

UNLABELED_RATIO = 2
"""The unlabeled images for each labeled one in a step."""

LOGIT_ADJUSTED = {"loss": {"class_path": "tailmatch.lightning_modules.losses.LogitAdjusted"}}

VALIDATING = 0.2
"""The largest share of the time that validations may take; with slower ones, there are fewer epochs."""


@dataclass(frozen=True)
class Source:
    """Where the images are.

    Attributes:
        class_path: The path of the data module that reads them.
        arguments: The arguments of the data module that say where the images are.
        can_merge: Whether it can put small classes together.
    """

    class_path: str
    arguments: dict[str, Any]
    can_merge: bool


@dataclass(frozen=True)
class Choice:
    """One proposal: a class with arguments, and why."""

    class_path: str
    arguments: dict[str, Any] = field(default_factory=dict)
    why: str = ""

    @property
    def is_pretrained(self) -> bool:
        """Whether it is a network that begins with pretrained weights."""
        return bool(self.arguments.get("pretrained") or self.arguments.get("weights"))


@dataclass(frozen=True)
class Plan:
    """The settings of a first training.

    Attributes:
        source: Where the images are.
        facts: What is in the data, one line each.
        image_size: The height and width of the images, and why.
        holdouts: The argument of each holdout, and its value.
        least: The least images of a class that is not merged with others, and why. None: no class is merged.
        method: The method.
        network: The network.
        device: `cpu` or `gpu`.
        labeled_batch_size: The number of labeled images of a step.
        frozen: Why the head of the network alone is trained. Empty: all of the network is.
        epochs: The number of epochs, each with a validation.
        steps_per_epoch: The number of steps of an epoch.
        duration: What the duration was estimated from. Empty: it was not.
    """

    source: Source
    facts: list[str]
    image_size: tuple[int, str]
    holdouts: dict[str, float]
    least: tuple[int, str] | None
    method: Choice
    network: Choice
    device: str
    labeled_batch_size: int
    frozen: str = ""
    epochs: int = EPOCHS
    steps_per_epoch: int = 50
    duration: str = ""


def image_size_for(sides: Sequence[int], device: str) -> tuple[int, str]:
    """Choose the size of the images: that of the files, as far as the device is fast enough.

    Args:
        sides: The shorter side of each image of a sample in pixels, sorted; not empty.
        device: `cpu` or `gpu`.

    Returns:
        The size in pixels, and the reason.
    """
    median = int(sides[len(sides) // 2])
    size = max([size for size in SIZES if size <= min(median, MOST_PIXELS[device])], default=SIZES[0])
    reason = f"half of the images have {median:,} pixels or more on their shorter side"
    if size == MOST_PIXELS[device] < median:
        reason += f"; more than {size} make a step slow on a {device.upper()}"
    return size, reason


def propose(source: Source, survey: Survey, image_size: tuple[int, str], device: str) -> Plan:
    """Propose all settings but the network and the number of steps.

    Args:
        source: Where the images are.
        survey: What is in them.
        image_size: The result of `image_size_for`, or the size that the user wants.
        device: `cpu` or `gpu`.
    """
    missing = {"val_holdout": 0.1, "test_holdout": 0.2}
    holdouts = {
        name: share for name, share in missing.items() if not sum(survey.counts.get(name.removesuffix("_holdout"), ()))
    }
    small = fewest(survey.labeled, survey.class_names, LEAST_IMAGES) if source.can_merge else []
    least = None
    if 1 < len(small) < len(survey.class_names):  # else a single class would be left
        least = (
            LEAST_IMAGES,
            f"{len(small)} classes have fewer than {LEAST_IMAGES} images ({_some(small)}), too few for training, "
            "validation and test; they become one class, `other`",
        )
    return Plan(
        source=source,
        facts=list(describe(survey)),
        image_size=image_size,
        holdouts=holdouts,
        least=least,
        method=method_for(survey),
        network=Choice(""),
        device=device,
        labeled_batch_size=batch_size_for(survey, device),
    )


def batch_size_for(survey: Survey, device: str) -> int:
    """Choose the labeled images of a step: no step needs an image twice."""
    most = 64 if device == "gpu" else 32
    available = [sum(survey.counts["train"])] + ([survey.unlabeled // UNLABELED_RATIO] if survey.unlabeled else [])
    return max(1, min(most, *available))


def describe(survey: Survey) -> Iterator[str]:
    """Say what is in a data set, one line each."""
    counts, names = survey.labeled, survey.class_names
    order = sorted(range(len(counts)), key=lambda k: -counts[k])
    parts = [f"{sum(each):,} in {split}" for split, each in survey.counts.items()]
    where = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    yield f"{sum(counts):,} labeled images of {len(counts):,} classes{where}, {survey.unlabeled:,} unlabeled images"
    largest, smallest = order[0], order[-1]
    yield f"from {counts[largest]:,} images ({names[largest]}) down to {counts[smallest]:,} ({names[smallest]})"
    few = fewest(counts, names, 10)
    if few:
        yield f"classes with fewer than 10 images: {len(few)} ({_some(few)})"
    if survey.unreadable:
        yield f"files that are no whole images, and are left out: {survey.unreadable:,}"
    if survey.repeated:
        yield f"images with the content of another one: {survey.repeated:,}, such as {'; '.join(survey.repeats)}"
    if survey.contradicting:
        named = "; ".join(survey.contradictions)
        yield f"contents with labels of several classes: {survey.contradicting:,}, such as {named}"


def method_for(survey: Survey) -> Choice:
    """Propose a method with its remedy for class imbalance."""
    counts = [count for count in survey.labeled if count]
    imbalanced = len(counts) > 1 and max(counts) >= LONG_TAIL * min(counts)
    ratio = f"the largest class has {max(counts) / max(min(counts), 1):.0f} times the images of the smallest"
    if survey.unlabeled:
        if not imbalanced:
            return Choice("FixMatch", {}, f"there are {survey.unlabeled:,} unlabeled images, and the classes are alike")
        return Choice(
            "ADELLO",
            {},
            f"there are {survey.unlabeled:,} unlabeled images of unknown classes, and {ratio}: ADELLO estimates their "
            "frequencies (docs/results.md compares the methods)",
        )
    if not imbalanced:
        return Choice("Supervised", {}, "there are no unlabeled images, and the classes are alike")
    return Choice("Supervised", LOGIT_ADJUSTED, f"there are no unlabeled images, and {ratio}")


def with_frozen(plan: Plan, steps: int) -> Plan:
    """Propose to train the head of a pretrained network alone, with the method that is best then.

    Args:
        plan: A plan that trains all of the network.
        steps: The number of its steps that fit in the time.
    """
    why = f"the head alone: {steps:,} steps with all of the network are too few to change it for the better"
    method = plan.method
    if method.class_path == "ADELLO":
        method = Choice(
            "Supervised",
            LOGIT_ADJUSTED,
            "the classes are of unequal size, and in a short training of a head, logit adjustment found more rare "
            "classes than FixMatch and ADELLO; the unlabeled images are not used (docs/own-data.md)",
        )
    return replace(plan, frozen=why, method=method)


def networks_for(device: str, image_size: int, network: str | None, weights: str | None) -> list[Choice]:
    """List the networks to try, the best first: the weights of a pretrained one may not be had.

    Args:
        device: `cpu` or `gpu`.
        image_size: The height and width of the images in pixels.
        network: The name of an architecture of timm. None: one that fits the device.
        weights: A file of pretrained weights. None: they are downloaded.
    """
    pretrained: bool | str = weights or True
    worth = "pretrained on ImageNet, which is worth more than any method when labels are few"
    if network is not None:
        return [Choice("TimmNetwork", {"name": network, "pretrained": pretrained}, "as asked")]
    if device == "gpu":
        arguments = {"name": "resnet50", "weights": weights or "IMAGENET1K_V2"}
        found = [Choice("TorchvisionNetwork", arguments, worth)]
    else:
        found = [Choice("EfficientNet", {"name": "b0", "pretrained": pretrained}, worth)]
    if weights is None:
        scratch = "random weights, since no pretrained ones could be fetched: docs/own-data.md says how to get them"
        small = Choice("CifarResNet", {"depth": 20}, scratch)
        found.append(
            small if image_size <= 48 else Choice("EfficientNet", {"name": "b0", "pretrained": False}, scratch)
        )
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
