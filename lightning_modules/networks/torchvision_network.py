"""Any torchvision classifier, by name."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.weights import download_state_dict, load_weights, read_state_dict
from tailmatch.lightning_modules.networks.network import Network

if TYPE_CHECKING:  # torchvision takes a second to import, and other networks do not need it
    from torchvision.models import WeightsEnum

_WITH_AUXILIARY_LOGITS = ("googlenet", "inception_v3")


class TorchvisionNetwork(Network):
    """A torchvision classifier whose last linear layer becomes the head.

    The features are the input of that layer. Dropout that torchvision applies just before it (MobileNet, VGG, ...)
    stays where it is: in training, `features` includes it. Vision transformers are built for their default image size,
    usually 224, and weights for another size do not fit. GoogLeNet and Inception v3 are built without auxiliary logits.

    Args:
        num_classes: Number of logits, at least 2.
        name: Name from `torchvision.models.list_models(module=torchvision.models)`.
        weights: Name of published weights ("DEFAULT", "IMAGENET1K_V2") or path of a local state dict with torchvision's
            keys. The classifier is not loaded. None for random weights.
        mean: Channel means of images in [0, 1], given together with `std`. None with `weights` is what those weights
            were trained with (for a local file, what the default weights of the architecture were trained with); None
            without `weights` takes both from the data set.
        std: Channel standard deviations of images in [0, 1], all positive. None as for `mean`.
        channels_last: Whether weights and activations are kept in channels-last memory format: convolutions are faster,
            and the numbers the same up to rounding.
        cosine_scale: Scale s of a `NormalizedLinear` head, whose logits are s times the cosine of features and class
            weights. None for a linear head with bias. `LDAM` needs a scale; its authors use 30.
        transform_input: Whether GoogLeNet or Inception v3 converts ImageNet's normalization to that of its published
            weights, which come from another framework. None: with `weights` it does.

    Raises:
        SettingsError: The name is unknown, the architecture does not end in a linear layer, `transform_input` is given
            for one that does not have it, or the weights are unknown, cannot be fetched or do not fit.
    """

    calls_backbone = True

    def __init__(
        self,
        num_classes: int,
        name: str = "resnet50",
        weights: str | None = None,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels_last: bool = True,
        cosine_scale: float | None = None,
        transform_input: bool | None = None,
    ) -> None:
        backbone = _build(name, weights is not None, transform_input)
        classifier, feature_dim = _remove_classifier(backbone, name)
        if weights is not None:
            state, source, published = _find_weights(name, weights)
            load_weights(backbone, state, source, skip=(f"{classifier}.", "aux1.", "aux2.", "AuxLogits."))
            if mean is None and std is None:
                transforms = published.transforms()
                mean, std = transforms.mean, transforms.std
        super().__init__(num_classes, feature_dim, mean, std, channels_last=channels_last, cosine_scale=cosine_scale)
        self.begins_trained = weights is not None
        self.backbone = backbone
        self._finish()

    @classmethod
    def arguments_to_rebuild(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """See `Network.arguments_to_rebuild`; in GoogLeNet and Inception v3, `weights` changes the input too."""
        rebuilt = {**arguments, "weights": None}
        if arguments.get("name") in _WITH_AUXILIARY_LOGITS and arguments.get("transform_input") is None:
            rebuilt["transform_input"] = arguments.get("weights") is not None
        return rebuilt

    def own_key(self, key: str) -> str:
        """See `Network.own_key`."""
        return super().own_key(_densenet_key(key))

    def _features(self, normalized: Tensor) -> Tensor:
        features: Tensor = self.backbone(normalized)
        return features


def _build(name: str, has_weights: bool, transform_input: bool | None) -> nn.Module:
    """Build the architecture with random weights."""
    import torchvision

    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        close = difflib.get_close_matches(name, names) or names
        raise SettingsError(f"name {name!r} is no classifier of torchvision; did you mean {', '.join(close)}?")
    kwargs: dict[str, bool] = {}
    if name in _WITH_AUXILIARY_LOGITS:
        converts = has_weights if transform_input is None else transform_input
        kwargs = {"aux_logits": False, "init_weights": not has_weights, "transform_input": converts}
    elif transform_input is not None:
        raise SettingsError(
            f"transform_input is {transform_input}; only {' and '.join(_WITH_AUXILIARY_LOGITS)} have it, and not {name}"
        )
    backbone: nn.Module = torchvision.models.get_model(name, weights=None, **kwargs)
    return backbone


def _remove_classifier(backbone: nn.Module, name: str) -> tuple[str, int]:
    """Replace the last linear layer by the identity; return its name and input size."""
    key, last = [(key, module) for key, module in backbone.named_modules() if list(module.parameters(recurse=False))][
        -1
    ]
    if not isinstance(last, nn.Linear):
        raise SettingsError(
            f"name {name!r}: the last layer is {type(last).__name__}, not Linear; choose another architecture"
        )
    backbone.set_submodule(key, nn.Identity())
    return key, last.in_features


def _find_weights(name: str, weights: str) -> "tuple[Mapping[str, Tensor], str, WeightsEnum]":
    """Return the state dict, its source, and the published weights whose transforms apply."""
    import torchvision

    published = torchvision.models.get_model_weights(name)
    if weights in published.__members__:
        entry: WeightsEnum = published[weights]
        state, source = download_state_dict(entry.url, check_hash=True), entry.url
    elif Path(weights).is_file():
        entry, state, source = published["DEFAULT"], read_state_dict(weights), weights
    else:
        raise SettingsError(
            f"weights {weights!r} are neither a file nor known for {name}: {', '.join(published.__members__)}"
        )
    if name.startswith("densenet"):
        state = {_densenet_key(key): value for key, value in state.items()}
    return state, source, entry


def _densenet_key(key: str) -> str:
    """Join "norm.1" to "norm1": module names lost their dots after the weights were published."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)
