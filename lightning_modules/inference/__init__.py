"""Use of trained networks: loading from a checkpoint, prediction, export."""
