"""The numbers that other projects give to classes."""

from tailmatch.datamodules.class_order import published_order


def test_digits_are_found_by_name_and_other_classes_by_position() -> None:
    assert published_order(list("1234567890")) == [9, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert published_order(list("0123456789")) == list(range(10))
    assert published_order(["cat", "dog", "1"]) == [0, 1, 2]
    assert published_order(["1", "2", "3"]) == [0, 1, 2]  # not 0 to 2: they are names
