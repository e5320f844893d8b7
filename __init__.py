"""Semi-supervised learning on long-tailed image data, as a PyTorch Lightning package.

The folder of this file is the package `tailmatch`, whatever the folder's name is.
"""

from importlib.metadata import version

__version__ = version("tailmatch")
