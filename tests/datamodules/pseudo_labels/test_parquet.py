"""Columns of Parquet files that are no arrays."""

import pyarrow as pa
import pytest

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels.parquet import arrays_of


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("probs", [[0.5, 0.5], None], "probs has 1 rows without a value"),
        ("probs", [[0.5, 0.5], [1.0]], "probs has rows of several lengths"),
        ("digest", [b"a", None], "digest has 1 rows without a value"),
        ("digest", [b"a", b"ab"], "digest has entries of several lengths"),
    ],
)
def test_a_column_with_rows_of_several_kinds_is_named(name: str, values: list[object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        arrays_of(pa.table({name: values}), [name])
