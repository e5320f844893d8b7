"""Checks of arguments: each raises a ValueError that names the field, its value and what would be right."""


def check_share(name: str, value: float) -> None:
    """Refuse a value outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; it must be in [0, 1]")


def check_positive(name: str, value: float) -> None:
    """Refuse a value that is not above 0."""
    if not value > 0:
        raise ValueError(f"{name} is {value}; it must be above 0")


def check_at_least(name: str, value: float, least: float) -> None:
    """Refuse a value below a bound."""
    if not value >= least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")
