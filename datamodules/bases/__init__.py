"""The base classes of all data modules."""
