"""Callbacks that write predictions and pseudo-labels to files."""
