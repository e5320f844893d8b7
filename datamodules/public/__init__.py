"""Public data sets by name: they download themselves, and their defaults are published settings."""
