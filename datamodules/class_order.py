"""The numbers that other projects give to the classes of a data set."""

from collections.abc import Sequence


def published_order(class_names: Sequence[str]) -> list[int]:
    """Return the class here, 0 to K - 1, of each number 0 to K - 1 that other projects give to classes.

    Class d is the digit d where the classes are the digits, which SVHN orders 1, 2, ..., 9, 0. Elsewhere it is class d.

    Args:
        class_names: The names of the K classes, in order.
    """
    digits = [str(number) for number in range(len(class_names))]
    if sorted(class_names) != sorted(digits):
        return list(range(len(class_names)))
    return [list(class_names).index(digit) for digit in digits]
