"""Shared settings of the tests."""

import os

import torch

# Tiny work on few cores: threads only wait for each other. Subprocesses inherit the variable.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
