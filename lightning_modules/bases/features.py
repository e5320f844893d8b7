"""Features of a whole set of images, as evaluation sees them."""

import torch
from torch import Tensor

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.networks.inputs import network_input
from tailmatch.lightning_modules.training.distributed import gather_interleaved


def data_module_of(method: ImageModule) -> LabeledUnlabeledDataModule:
    """The data module of the method's run.

    Raises:
        SettingsError: The run has none.
    """
    data = getattr(method.trainer, "datamodule", None)
    if not isinstance(data, LabeledUnlabeledDataModule):
        raise SettingsError(
            f"{type(method).__name__} needs the images of a data module, and the data is {type(data).__name__}: "
            "give the trainer a LabeledUnlabeledDataModule"
        )
    return data


@torch.no_grad()
def features_of(method: ImageModule, rows: ImageRows) -> Tensor:
    """Features `float32 [N, D]` of images without augmentation; each process computes its share and gets all."""
    loader = data_module_of(method).evaluation_loader(rows)
    with method.trainer.precision_plugin.val_step_context():
        features = [method.network.features(network_input(method.network, batch)).float() for batch in loader]
    return gather_interleaved(torch.cat(features), len(rows))
