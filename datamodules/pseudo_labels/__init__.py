"""Pseudo-labels in memory and in files."""
