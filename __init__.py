"""Semi-supervised learning on long-tailed image data, as a PyTorch Lightning package.

The folder of this file is the package `tailmatch`, whatever the folder's name is.
"""

__version__ = "0.2.0"
