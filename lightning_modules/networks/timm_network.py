"""Any architecture of timm, by name: convolutional networks, vision transformers, DINOv2."""

import difflib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_below_one, check_count
from tailmatch.lightning_modules.checkpoints.weights import NotFetchedError, check_weights_allowed, read_state_dict
from tailmatch.lightning_modules.networks.network import Network
from tailmatch.lightning_modules.training.finite import check_file, infinite_by_design


class TimmNetwork(Network):
    """An architecture of timm without its classifier; the features are what timm's classifier sees.

    Convolutional networks take images of any size. A transformer is built for one size: with `image_size` for that one
    (the position embeddings of pretrained weights are resampled once), else for any size if the architecture can
    resample them in each pass (`dynamic_img_size`), else for its own.

    Args:
        num_classes: Number of logits, at least 2.
        name: Name from `timm.list_models()`, also with the tag of published weights:
            "vit_small_patch14_dinov2.lvd142m".
        pretrained: False for random weights; True for timm's published weights of that name, downloaded or from Hugging
            Face's cache; a path for a local file: a state dict of `torch.save` or `.safetensors`, with timm's names or
            those of the original authors where timm converts them. The classifier is not loaded.
        image_size: Height and width in pixels of the images, for an architecture that is built for one size. None: see
            above.
        dropout: Probability in [0, 1) that a feature is zeroed before the head in training.
        drop_path: Probability in [0, 1) that the last block skips its residual branch for a sample in training; for
            earlier blocks it is smaller in proportion to their depth.
        published_normalization: Whether mean and std are those that timm names for the architecture, if they are not
            given. None: with `pretrained` they are; otherwise they are taken from the data set.
        mean: Channel means of images in [0, 1], given together with `std`.
        std: Channel standard deviations of images in [0, 1], all positive. None as for `mean`.
        channels_last: Whether weights and activations are kept in channels-last memory format: convolutions are faster,
            and the numbers the same up to rounding.
        cosine_scale: Scale s of a `NormalizedLinear` head, whose logits are s times the cosine of features and class
            weights. None for a linear head with bias. `LDAM` needs a scale; its authors use 30.

    Raises:
        SettingsError: timm is not installed, the name is unknown, the architecture does not take an argument, or the
            weights cannot be fetched or do not fit.
    """

    def __init__(
        self,
        num_classes: int,
        name: str = "resnet50",
        *,
        pretrained: bool | str = False,
        image_size: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        published_normalization: bool | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = True,
        cosine_scale: float | None = None,
    ) -> None:
        check_below_one("drop_path", drop_path)
        if image_size is not None:
            check_count("image_size", image_size)
        facts = _published_facts(name)
        backbone, size = _built(name, facts, image_size, drop_path, pretrained)
        takes_published = pretrained is not False if published_normalization is None else published_normalization
        if takes_published and mean is None and std is None:
            mean, std = facts["mean"], facts["std"]
        feature_dim: int = getattr(backbone, "head_hidden_size", None) or backbone.num_features
        super().__init__(num_classes, feature_dim, mean, std, dropout, channels_last, cosine_scale)
        self.begins_trained = pretrained is not False
        self.backbone = backbone
        self._name, self._size = name, size
        self._finish()

    @classmethod
    def arguments_to_rebuild(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """See `Network.arguments_to_rebuild`."""
        return {**arguments, "pretrained": False}

    def _features(self, normalized: Tensor) -> Tensor:
        height, width = normalized.shape[-2:]
        if self._size is not None and (height, width) != self._size:
            raise self._another_size(height, width, f"it is built for {self._size[0]} x {self._size[1]}")
        backbone: Any = self.backbone
        try:
            tokens_or_map = backbone.forward_features(normalized)
        except AssertionError as error:  # timm's checks of the image's size
            reason = str(error).rstrip(".") or "its own are {} x {}".format(*backbone.pretrained_cfg["input_size"][1:])
            raise self._another_size(height, width, reason) from error
        features: Tensor = backbone.forward_head(tokens_or_map, pre_logits=True)
        return features

    def _another_size(self, height: int, width: int, reason: str) -> SettingsError:
        return SettingsError(
            f"images are {height} x {width}, which {self._name} does not take ({reason}): change the data's "
            "image_size, or set the network's image_size to that of the data"
        )


def _published_facts(name: str) -> dict[str, Any]:
    """Return what timm knows of an architecture and its published weights; refuse an unknown name."""
    missing = [package for package in ("timm", "safetensors") if find_spec(package) is None]
    if missing:
        raise SettingsError(f"TimmNetwork needs {' and '.join(missing)}: pip install 'tailmatch[timm]'")
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):  # a name such as hf-hub:..., which timm would fetch, is none
        known = timm.list_models()
        close = difflib.get_close_matches(architecture, known) or known[:3]
        raise SettingsError(f"name {name!r} is no architecture of timm; did you mean {', '.join(close)}?")
    try:
        published: Any = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
        raise SettingsError(
            f"name {name!r}: timm has no weights {tag!r} of {architecture}; it has {', '.join(tags) or 'none'}"
        ) from error
    return dict(published.to_dict())


def _built(
    name: str, facts: Mapping[str, Any], image_size: int | None, drop_path: float, pretrained: bool | str
) -> tuple[Any, tuple[int, int] | None]:
    """Build the architecture with its weights; return the one size of images that it takes, or None for any."""
    options = {"drop_path_rate": drop_path} if drop_path else {}
    if image_size is not None:
        if not facts["fixed_input_size"]:
            raise SettingsError(f"image_size is {image_size}, and {name} takes images of any size: leave it out")
        return _made(name, facts, pretrained, {**options, "img_size": image_size}), (image_size, image_size)
    if not facts["fixed_input_size"]:
        return _made(name, facts, pretrained, options), None
    try:
        return _made(name, facts, pretrained, {**options, "dynamic_img_size": True}), None
    except _NotTaken:
        _, height, width = facts["input_size"]
        return _made(name, facts, pretrained, options), (height, width)


class _NotTaken(SettingsError):
    """The architecture does not take one of the options."""


def _made(name: str, facts: Mapping[str, Any], pretrained: bool | str, options: Mapping[str, Any]) -> Any:
    """Make the architecture without its classifier, and load its weights.

    A file's weights pass through timm's conversion for the architecture, and must be complete: with as many classes in
    the file as in the network, none, timm requires all names.
    """
    import timm

    overlay: dict[str, Any] | None = None
    source = name
    if isinstance(pretrained, str):
        source = f"weights {pretrained!r} of {name}"
        overlay = {"state_dict": _without_classifier(read_state_dict(pretrained), facts), "num_classes": 0}
    elif pretrained:
        check_weights_allowed(name)
    try:
        backbone: Any = timm.create_model(
            name, pretrained=pretrained is not False, pretrained_cfg_overlay=overlay, num_classes=0, **options
        )
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise _NotTaken(f"{name} has none of {', '.join(options)} ({error}): leave it out") from error
    except (AssertionError, ValueError) as error:  # of an image size that the architecture cannot have
        raise SettingsError(f"{name} cannot be built; image_size is {options.get('img_size')}: {error}") from error
    except Exception as error:
        if pretrained is False:
            raise
        raise _not_loaded(source, name, error, isinstance(pretrained, str)) from error
    if pretrained is not False:
        check_file(backbone.state_dict(), source, infinite_by_design(backbone))
    backbone.pretrained_cfg = backbone.default_cfg = dict(facts)  # without the file's tensors
    return backbone


def _without_classifier(state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Tensor]:
    names = facts["classifier"] or ()
    prefixes = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
    return {key: tensor for key, tensor in state.items() if not key.startswith(prefixes)}


def _not_loaded(source: str, name: str, error: Exception, is_file: bool) -> SettingsError:
    reason = " ".join(str(error).split())[:300]
    if is_file:
        return SettingsError(f"{source} do not fit the network: {reason}")
    return NotFetchedError(
        f"pretrained weights of {name} could not be fetched or read ({type(error).__name__}: {reason}). Without a "
        "network, download them elsewhere and give the path of the file, network.pretrained FILE (.safetensors, .pth)"
    )
