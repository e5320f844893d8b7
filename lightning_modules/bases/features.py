"""Features of a whole set of images, computed as in evaluation."""

import torch
from torch import Tensor

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.inference.predict_set import rows_of_set
from tailmatch.lightning_modules.training.distributed import gather_interleaved


def data_module_of(method: ImageModule) -> LabeledUnlabeledDataModule:
    """Return the data module of the method's trainer.

    Raises:
        SettingsError: The trainer has no `LabeledUnlabeledDataModule`.
    """
    data = getattr(method.trainer, "datamodule", None)
    if not isinstance(data, LabeledUnlabeledDataModule):
        raise SettingsError(
            f"{type(method).__name__} needs the images of a data module, and the data is {type(data).__name__}: "
            "give the trainer a LabeledUnlabeledDataModule"
        )
    return data


def features_of(method: ImageModule, rows: ImageRows) -> Tensor:
    """Compute features `float32 [N, D]` of images without augmentation.

    Each process computes a part of the rows and receives all of them.

    Raises:
        NotFiniteError: A feature is NaN.
    """
    network, loader = method.network, data_module_of(method).evaluation_loader(rows)
    parts = rows_of_set(method.trainer, network, loader, lambda images: network.features(images).float())
    return gather_interleaved(torch.cat([features for features, _ in parts]), len(rows))
