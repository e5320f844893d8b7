"""Callbacks that write predictions and pseudo-labels into files."""
