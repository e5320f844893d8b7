"""Callbacks that show what happens in a run."""
