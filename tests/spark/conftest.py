"""One Spark session for all tests of this folder, skipped by name where there is no Spark."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.spark.session import check_java, check_packages, spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REQUIRED = os.environ.get("TAILMATCH_SPARK_TESTS") == "required"
SETTINGS = {
    "spark.master": "local[2]",
    "spark.ui.enabled": "false",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
}


@pytest.fixture(scope="session")
def spark() -> "Iterator[SparkSession]":
    """A small session on two slots, which starts in seconds."""
    try:
        check_packages()
        check_java()
    except SettingsError as missing:
        if REQUIRED:
            raise
        pytest.skip(f"Spark: {missing}")
    session = spark_session("tests", SETTINGS)
    yield session
    session.stop()
