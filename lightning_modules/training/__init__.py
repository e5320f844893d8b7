"""Optimizers, schedules, averaged weights, and the processes of a run."""
