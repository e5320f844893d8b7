import sys
from dataclasses import fields
from pathlib import Path
from shlex import quote

import pytest

from tailmatch.command_line import stream
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.spark.stream_settings import StreamSettings


def settings(tmp_path: Path, **changed: object) -> StreamSettings:
    (tmp_path / "in").mkdir(exist_ok=True)
    needed = {"input": str(tmp_path / "in"), "model": "m", "reference": "r", "output": str(tmp_path / "out")}
    return StreamSettings(**{**needed, **changed})  # type: ignore[arg-type]


def test_good_settings_pass(tmp_path: Path) -> None:
    settings(tmp_path, on_drift=f"{quote(sys.executable)} -c 'print(1)'", archive=str(tmp_path / "done")).check()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input", "no/such/folder", "there is no folder .*no/such/folder"),
        ("input", "s3a://bucket/images", "must be a folder of this machine"),
        ("window", "1 minute", "window is '1 minute'; it must be a duration such as 30s"),
        ("window", "0s", "at least 1s"),
        ("late", "999999999d", "at most 36500d"),
        ("late", "-1s", "late is '-1s'"),
        ("every", "5", "every is '5'"),
        ("remember", "1s", "remember is '1s'.*at least 60s"),
        ("max_files", 0, "max_files is 0"),
        ("alarm", 0.0, "alarm is 0.0"),
        ("least_distance", 1.0, "least_distance is 1.0"),
        ("on_drift", "no-such-program --now", "there is no program no-such-program"),
        ("on_drift", "echo 'open", "No closing quotation"),
        ("on_drift", " ", "on_drift is empty"),
        ("output", "{input}/out", "output is .*, in the folder of the input"),
        ("output", "{input}", "output is .*, in the folder of the input"),
        ("archive", "{input}/done", "archive is .*, in the folder of the input"),
    ],
)
def test_what_means_nothing_is_refused_before_spark_starts(
    tmp_path: Path, name: str, value: object, message: str
) -> None:
    given = value.format(input=tmp_path / "in") if isinstance(value, str) else value
    with pytest.raises(SettingsError, match=message):
        settings(tmp_path, **{name: given}).check()


def test_the_command_has_an_option_for_each_setting_with_its_default() -> None:
    needed = ["--input=i", "--model=m", "--reference=r", "--output=o"]
    asked = vars(stream.parser().parse_args(needed))
    asked["trust"] = asked.pop("trust_checkpoint")
    expected = {field.name: getattr(StreamSettings("i", "m", "r", "o"), field.name) for field in fields(StreamSettings)}
    assert {name: {"false": False}.get(value, value) for name, value in asked.items()} == expected
