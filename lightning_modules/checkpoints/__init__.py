"""Checkpoints and weights of other trainings: fetched and read, tensors only."""
