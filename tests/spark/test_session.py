"""What must be installed for Spark: one message for each thing that is not."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.spark import session as spark_of
from tailmatch.spark.session import check_java, check_packages, slots, spark_session, sql_settings

GOOD = {"pyspark": "4.1.0", "pandas": "2.3.3", "pyarrow": "18.0.0"}


def versions(found: dict[str, str]) -> Callable[[str], str]:
    def version(name: str) -> str:
        if name not in found:
            raise PackageNotFoundError(name)
        return found[name]

    return version


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"pyspark": None}, "pyspark is not installed.*pip install 'tailmatch"),
        ({"pandas": None}, "pandas is not installed"),
        ({"pyspark": "3.5.1"}, "pyspark is 3.5.1; Spark needs 4.1 or newer"),
        ({"pandas": "3.0.0"}, "pandas is 3.0.0; Spark needs 2.2 or newer, below 3"),
        ({"pyarrow": "9.0.0"}, "pyarrow is 9.0.0"),
    ],
)
def test_a_package_that_does_not_fit_is_named(
    changed: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spark_of, "version", versions(GOOD))
    check_packages()
    found = {name: value for name, value in (GOOD | changed).items() if value}
    monkeypatch.setattr(spark_of, "version", versions(found))
    with pytest.raises(SettingsError, match=says):
        check_packages()


def java(folder: Path, said: str) -> Path:
    file = folder / "bin" / "java"
    file.parent.mkdir(parents=True)
    file.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    file.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ('openjdk version "17.0.15" 2025-04-15', None),
        ('openjdk version "25" 2025-09-16', None),
        ('java version "1.8.0_402"', "is Java 8; Spark needs Java 17 or newer"),
        ('openjdk version "11.0.2" 2019-01-15', "is Java 11; Spark needs Java 17 or newer"),
        ("Error: no JVM", "does not say its version.*no JVM"),
    ],
)
def test_java_must_be_new_enough(said: str, says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java(tmp_path, said)))
    if says is None:
        check_java()
        return
    with pytest.raises(SettingsError, match=says):
        check_java()


def test_java_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match="JAVA_HOME is .*no bin/java in it: install Java 17"):
        check_java()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match="no java on the PATH: install Java 17"):
        check_java()


@pytest.mark.spark
def test_the_present_session_is_taken_and_keeps_its_settings(spark: Any) -> None:
    assert spark_session("other") is spark and slots(spark) == 2
    name = "spark.sql.execution.arrow.maxRecordsPerBatch"
    before = spark.conf.get(name)
    with sql_settings(spark, {name: "7", "spark.tailmatch.new": "1"}):
        assert spark.conf.get(name) == "7" and spark.conf.get("spark.tailmatch.new") == "1"
    assert spark.conf.get(name) == before and spark.conf.get("spark.tailmatch.new", None) is None
