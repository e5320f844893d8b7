"""Trained networks in use: rebuilt from a checkpoint, exported."""
