"""Semi-supervised learning on long-tailed image data, as a PyTorch Lightning package.

`tailmatch.load(checkpoint)` returns a trained method. `tailmatch.lightning_modules` has the methods,
`tailmatch.datamodules` the data sets, and `tailmatch.callbacks` the class-imbalance remedies and the reports. Each of
them is imported when it is first used.

The folder of this file is the package `tailmatch`, whatever the folder is called.
"""

from typing import TYPE_CHECKING

from tailmatch.lazy import lazily

if TYPE_CHECKING:
    from tailmatch import callbacks as callbacks
    from tailmatch import datamodules as datamodules
    from tailmatch import lightning_modules as lightning_modules
    from tailmatch.datamodules.arguments import SettingsError as SettingsError
    from tailmatch.lightning_modules.inference.trained_network import load as load
    from tailmatch.lightning_modules.inference.trust import trust_checkpoints as trust_checkpoints

__version__ = "0.2.0"

__all__ = ["SettingsError", "__version__", "callbacks", "datamodules", "lightning_modules", "load", "trust_checkpoints"]

_HOMES = {
    "SettingsError": "tailmatch.datamodules.arguments",
    "load": "tailmatch.lightning_modules.inference.trained_network",
    "trust_checkpoints": "tailmatch.lightning_modules.inference.trust",
}

if not TYPE_CHECKING:  # for a type checker, the names above are all there are
    __getattr__, __dir__ = lazily(__name__, _HOMES, ("callbacks", "datamodules", "lightning_modules"))
