"""The most confident pseudo-labels of each class, one for each content, in a file that a training takes."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels import parts
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import write_chunks
from tailmatch.datamodules.pseudo_labels.selection import class_ranks, first_of_each, select_labels
from tests.typed import call_here, tailmatch

CONTENT = PseudoLabelFile(
    np.array([f"{name}.png" for name in "abcdefg"]),
    np.array([0, 1, 0, 0, 1, 0, 0]),
    np.array([0.5, 0.75, 0.875, 0.75, 0.5, 0.875, 0.25], np.float32),
    None,
    Origin(["ant", "bee", "cow"], "c0ffee"),
    np.arange(7),
    np.array([[row, 1] for row in (0, 1, 2, 3, 4, 2, 6)], np.uint8),  # f is c once more
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"per_class": 2}, "b c d e"),
        ({"per_class": 9}, "a b c d e g"),
        ({"share": 0.5}, "b c d"),
        ({"share": 0.01}, "b c"),
        ({"share": 1.0}, "a b c d e g"),
        ({"threshold": 0.75}, "b c d"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_by_hand(
    rule: dict[str, Any], expected: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 3)
    write_chunks(tmp_path / f"all.{suffix}", iter([CONTENT]), CONTENT.origin)
    done = select_labels(tmp_path / f"all.{suffix}", tmp_path / f"some.{suffix}", **rule)
    read = read_pseudo_labels(tmp_path / f"some.{suffix}")
    wanted = CONTENT.take(np.array([f"{name}.png" in [f"{k}.png" for k in expected.split()] for name in "abcdefg"]))
    for name, array in wanted.arrays().items():
        assert getattr(read, name).tolist() == array.tolist(), name
    assert read.origin == CONTENT.origin
    assert done.counts.tolist() == [4, 2, 0] and done.repeated == 1
    assert done.selected.tolist() == np.bincount(wanted.label, minlength=3).tolist()
    assert done.least.tolist() == [min(wanted.confidence[wanted.label == k], default=0) for k in range(3)]


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 3)
    rng = np.random.default_rng(0)
    many = PseudoLabelFile(
        np.array([f"{row:03}.png" for row in range(200)]),
        rng.integers(0, 3, 200),
        rng.choice(np.float32([0.5, 0.75, 1]), 200),  # many are equal
        None,
        CONTENT.origin,
        np.arange(200),
        rng.integers(0, 150, (200, 1)).astype(np.uint8),
    )
    kept = []
    for number, order in enumerate((np.arange(200), rng.permutation(200))):
        write_chunks(tmp_path / f"{number}.parquet", iter([many.take(order)]), many.origin)
        select_labels(tmp_path / f"{number}.parquet", tmp_path / f"{number}.npz", share=0.4)
        kept.append(read_pseudo_labels(tmp_path / f"{number}.npz").key.tolist())
    assert kept[0] == sorted(kept[1]) != kept[1]


def test_without_digests_every_row_counts(tmp_path: Path) -> None:
    plain = replace(CONTENT, digest=None)
    write_chunks(tmp_path / "all.npz", iter([plain]), plain.origin)
    done = select_labels(tmp_path / "all.npz", tmp_path / "some.npz", per_class=2)
    assert read_pseudo_labels(tmp_path / "some.npz").key.tolist() == ["b.png", "c.png", "e.png", "f.png"]
    assert done.repeated == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_ranks_and_repeats_as_by_a_loop(rows: list[tuple[int, int, int]], shuffler: Random) -> None:
    place = np.array(shuffler.sample(range(len(rows)), len(rows)))
    label, confidence, content = (np.array(column) for column in zip(*rows, strict=True))
    confidence = (confidence / 4).astype(np.float32)
    digest = np.ascontiguousarray(content.astype(np.uint8)[:, None]).view("V1")[:, 0]
    order = sorted(range(len(rows)), key=lambda row: (-confidence[row], place[row]))
    seen: dict[int, int] = {}
    for row in order:
        seen.setdefault(content[row], row)
    first = first_of_each(digest, confidence, place)
    assert first.nonzero()[0].tolist() == sorted(seen.values())
    rank = class_ranks(label, confidence, first, place)
    for k in range(4):
        kept = [row for row in order if first[row] and label[row] == k]
        assert rank[kept].tolist() == list(range(len(kept)))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "give one of per_class, share and threshold"),
        ({"per_class": 1, "share": 0.5}, "give one of"),
        ({"per_class": 0}, "per_class is 0; it must be at least 1"),
        ({"share": 0.0}, r"share is 0.0; it must be in \(0, 1\]"),
        ({"threshold": 2}, r"threshold is 2; it must be in \[0, 1\]"),
        ({"threshold": 0.9}, "threshold is 0.9, and the largest confidence of .* is 0.875"),
        ({"per_class": 1, "labels": "no.npz"}, "no pseudo-label file no.npz"),
        ({"per_class": 1, "output": "all.npz"}, "all.npz exists"),
    ],
)
def test_what_does_not_fit_is_refused(
    rule: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_chunks(Path("all.npz"), iter([CONTENT]), CONTENT.origin)
    with pytest.raises(SettingsError, match=message):
        select_labels(**{"labels": "all.npz", "output": "some.npz", **rule})
    assert [path.name for path in tmp_path.iterdir()] == ["all.npz"]


def test_the_command_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_chunks(Path("all.npz"), iter([CONTENT]), CONTENT.origin)
    lines = tailmatch("select", "--labels=all.npz", "--per_class=1", "--output=some.npz").splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["ant", "4", "1", "0.8750"],
        ["bee", "2", "1", "0.7500"],
        ["cow", "0", "0"],
    ]
    assert lines[4:] == ["1 rows of content that another row has were left out", "2 pseudo-labels: some.npz"]
    again = call_here("select", "--labels=all.npz", "--per_class=1", "--output=some.npz")
    assert again.returncode == 1 and again.stderr.startswith("tailmatch: error: some.npz exists")
