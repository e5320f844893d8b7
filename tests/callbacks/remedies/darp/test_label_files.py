"""DARP on pseudo-label files: the solver's numbers, row by row, from all rows or a sample within its standard error."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tailmatch.callbacks.remedies.darp.label_files import refine_labels
from tailmatch.callbacks.remedies.darp.prices import fit_prices, read_prices, write_prices
from tailmatch.callbacks.remedies.darp.solver import Solver, refine_rows
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.pseudo_labels import parts
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import write_chunks
from tests.callbacks.remedies.darp.test_solver import random_problem, realistic_problem
from tests.typed import call_here, tailmatch

NAMES = [f"class {k}" for k in range(10)]


def labels(path: Path, probs: Tensor, first: int = 0) -> Path:
    """A pseudo-label file of these probabilities, of image files."""
    confidence, label = probs.max(dim=1)
    count = len(probs)
    keys = np.array([f"{first + row:07}.png" for row in range(count)])
    names = [f"class {k}" for k in range(probs.shape[1])]
    content = PseudoLabelFile(
        keys, label.numpy(), confidence.numpy(), probs.numpy(), Origin(names, "c0ffee"), np.arange(count) + first
    )
    write_chunks(path, iter([content]), content.origin)
    return path


def prior(path: Path, target: Tensor) -> Path:
    names = [f"class {k}" for k in range(len(target))]
    path.write_text(json.dumps({"class_names": names, "counts": target.tolist()}))
    return path


@given(seed=st.integers(0, 10**6))
def test_row_by_row_is_the_solvers_result(seed: int) -> None:
    probs, target = random_problem(seed)
    fitted, _ = fit_prices(probs, target, [f"class {k}" for k in range(len(target))])
    expected = Solver().solve(probs, target).rows
    rows = torch.cat([refine_rows(row[None], fitted.prices) for row in probs])
    assert (rows - expected).abs().max() <= 1e-6
    assert torch.equal(probs, random_problem(seed)[0])  # they are left as they are


def test_prices_are_read_as_they_were_written(tmp_path: Path) -> None:
    probs, target = random_problem(29)  # a class without a target, many classes
    assert (target == 0).any()
    fitted, _ = fit_prices(probs, target, [f"class {k}" for k in range(len(target))])
    write_prices(tmp_path / "darp.json", fitted)
    read = read_prices(tmp_path / "darp.json")
    assert torch.equal(refine_rows(probs, read.prices), refine_rows(probs, fitted.prices))
    assert torch.equal(read.errors, fitted.errors) and (read.errors[target == 0] == 0).all()
    assert [getattr(read, name) == getattr(fitted, name) for name in ("rows", "alpha", "tolerance", "residual")]


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_file_is_refined_as_the_solver_does(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MOST_ROWS", 300)  # several chunks
    probs, target = realistic_problem(2000, 10)
    source, output = labels(tmp_path / f"labels.{suffix}", probs), tmp_path / f"refined.{suffix}"
    done = refine_labels(source, output, target=(target / 7).tolist())
    expected = Solver().solve(probs, target).rows
    read, before = read_pseudo_labels(output), read_pseudo_labels(source)
    assert read.probs is not None and read.size is not None
    assert np.abs(read.probs - expected.numpy()).max() <= 1e-6
    assert np.array_equal(read.label, read.probs.argmax(1)) and np.array_equal(read.confidence, read.probs.max(1))
    assert read.key.tolist() == before.key.tolist() and read.size.tolist() == list(range(2000))
    assert read.origin == before.origin
    assert done.totals is not None and torch.allclose(done.totals, target, rtol=1e-4)
    assert done.errors.max() == 0 and torch.allclose(done.target, target)


def test_a_folder_of_parts_is_refined_like_one_file(tmp_path: Path) -> None:
    probs, target = realistic_problem(1200, 10)
    (tmp_path / "parts").mkdir()
    for number, first in enumerate((0, 500, 1100)):
        labels(tmp_path / "parts" / f"part-{number}.parquet", probs[first : (500, 1100, 1200)[number]], first)
    (tmp_path / "parts" / "_SUCCESS").touch()
    counts = target.tolist()
    refine_labels(tmp_path / "parts", tmp_path / "a.parquet", target=counts)
    refine_labels(labels(tmp_path / "whole.npz", probs), tmp_path / "b.npz", target=counts)
    one, other = read_pseudo_labels(tmp_path / "a.parquet"), read_pseudo_labels(tmp_path / "b.npz")
    for name, array in one.arrays().items():
        assert np.array_equal(array, getattr(other, name)), name


def test_a_sample_is_within_its_standard_error(tmp_path: Path) -> None:
    """Of many samples, the errors of the class totals are as large as they are said to be."""
    probs, target = realistic_problem(20_000, 10)
    off = []
    for seed in range(30):
        chosen = torch.randperm(len(probs), generator=torch.Generator().manual_seed(seed))[:2000]
        fitted, _ = fit_prices(probs[chosen], target, NAMES)
        totals = refine_rows(probs, fitted.prices).sum(0, dtype=torch.float64)
        off.append((totals / target - 1) / fitted.errors_for(len(probs)))
    spread = torch.stack(off).square().mean(0).sqrt()
    assert (0.5 < spread).all() and (spread < 1.6).all(), spread  # 1 up to what 30 samples allow
    assert torch.stack(off).abs().max() < 5


def test_prices_of_a_sample_are_kept_and_applied_to_another_file(tmp_path: Path) -> None:
    probs, target = realistic_problem(20_000, 10)
    source, prices = labels(tmp_path / "labels.parquet", probs), tmp_path / "darp.json"
    fitted = refine_labels(source, target=target.tolist(), sample=8000, save_prices=prices, max_error=0.15)
    assert fitted.totals is None and (0 < fitted.errors).all() and fitted.errors.max() < 0.15
    again = refine_labels(source, target=target.tolist(), sample=8000, save_prices=tmp_path / "2.json", max_error=0.15)
    assert torch.equal(again.errors, fitted.errors) and prices.read_bytes() == (tmp_path / "2.json").read_bytes()
    applied = refine_labels(source, tmp_path / "refined.parquet", prices=prices)
    assert applied.totals is not None
    assert ((applied.totals / target - 1).abs() < 4 * fitted.errors).all()
    assert (applied.errors > fitted.errors).all()  # of rows of which the sample may be no part


def test_a_class_with_too_few_rows_is_refused_with_the_number_that_would_do(tmp_path: Path) -> None:
    probs, target = realistic_problem(20_000, 10)
    source = labels(tmp_path / "labels.npz", probs)
    with pytest.raises(SettingsError, match=r"sample is 500, too few for the class class 9: \d rows") as refused:
        refine_labels(source, tmp_path / "a.npz", target=target.tolist(), sample=500)
    assert not (tmp_path / "a.npz").exists()
    found = re.search(r"a sample of at least ([\d,]+) rows", str(refused.value))
    assert found is not None
    enough = int(1.3 * int(found[1].replace(",", "")))  # the spread that it follows from is one of a small sample
    done = refine_labels(source, tmp_path / "a.npz", target=target.tolist(), sample=min(enough, 20_000))
    assert done.errors.max() <= 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either target, to fit prices, or prices"),
        ({"target": [1, 1], "prices": "a.json"}, "give either target"),
        ({"prices": "a.json", "sample": 5}, "sample and save_prices are for a fit"),
        ({"target": [1, 1], "output": None}, "nothing would be written"),
        ({"target": [1, 1], "sample": 0}, "sample is 0; it must be at least 1"),
        ({"target": [1, 1, 1]}, "target has 3 entries; it needs one for each of 2 classes"),
        ({"target": [1, -1]}, r"target\[1\] is -1; it must be at least 0"),
        ({"target": [0, 0]}, "its sum must be above 0"),
        ({"target": "no.json"}, "no prior file no.json"),
        ({"prices": "no.json"}, "no file of prices no.json"),
        ({"target": [1, 1], "labels": "no.npz"}, "no pseudo-label file no.npz"),
        ({"target": [1, 1], "labels": "empty"}, "the folder empty has no .parquet files"),
        ({"target": [1, 1], "labels": "mixed"}, "do not belong together: origin is"),
        ({"target": [1, 1], "labels": "bare.npz"}, "bare.npz has no probs, which DARP refines"),
        ({"target": [1, 1], "output": "a.csv"}, "its name must end in .npz or .parquet"),
        ({"target": [1, 1], "output": "two.npz"}, "two.npz exists"),
        ({"target": [1, 1], "alpha": 0.5}, "alpha is 0.5"),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    probs = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
    labels(Path("two.npz"), probs)
    bare = read_pseudo_labels(Path("two.npz"))
    without = PseudoLabelFile(bare.key, bare.label, bare.confidence, None, bare.origin, bare.size)
    write_chunks(Path("bare.npz"), iter([without]), bare.origin)
    for folder in ("empty", "mixed"):
        Path(folder).mkdir()
    labels(Path("mixed/a.parquet"), probs)
    labels(Path("mixed/b.parquet"), torch.eye(3))
    before = {path: path.stat().st_size for path in Path().rglob("*")}
    with pytest.raises(SettingsError, match=message):
        refine_labels(**{"labels": "two.npz", "output": "out.npz", **arguments})
    assert {path: path.stat().st_size for path in Path().rglob("*")} == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"threshold": [0.5]}, "threshold is .*; it must be 2 numbers"),
        ({"scale": [1, float("nan")]}, r"scale\[1\] is nan"),
        ({"cut": [1, 0]}, r"cut\[0\] is 1"),
        ({"nu": ["a", 0]}, r"nu\[0\] is 'a'"),
        ({"class_names": "ab"}, "class_names is 'ab'"),
        ({"rows": None}, "rows is None"),
        ({"target": [0, 0]}, "the sum of target is 0.0"),
        ({"class_names": ["a", "b"]}, r"is of other classes: \['a', 'b'\], and the pseudo-labels have"),
    ],
)
def test_prices_that_mean_nothing_are_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "darp.json"
    source = labels(tmp_path / "labels.npz", torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
    refine_labels(source, target=[1, 1], save_prices=path)
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(SettingsError, match=message):
        refine_labels(source, tmp_path / "out.npz", prices=path)
    path.write_text("[]")
    with pytest.raises(SettingsError, match="darp.json is no file of DARP's prices"):
        refine_labels(source, tmp_path / "out.npz", prices=path)


def test_the_command_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    probs, target = realistic_problem(2000, 10)
    labels(Path("labels.npz"), probs)
    prior(Path("prior.json"), target)
    words = ["refine", "--labels=labels.npz", "--target=prior.json", "--output=refined.npz", "--save_prices=darp.json"]
    lines = tailmatch(*words).splitlines()
    assert lines[0].split() == ["class", "target", "standard", "error", "total", "off", "by"]
    assert lines[1].startswith("class 0") and f"{float(target[0]):,.1f}" in lines[1]
    assert lines[-2:] == ["prices: darp.json", "refined pseudo-labels: refined.npz"]
    again = call_here(*words)
    assert again.returncode == 1 and again.stderr.startswith("tailmatch: error: refined.npz exists")
    assert len(again.stderr.splitlines()) == 1
    assert call_here("refine", "--output=a.npz").returncode == 2
