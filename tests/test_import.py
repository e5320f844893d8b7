"""Test the public names of `import tailmatch`, and that it imports nothing slow."""

import subprocess
import sys

import pytest

import tailmatch


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, tailmatch; print([m for m in ('torch', 'numpy', 'pytorch_lightning') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_it_has_what_a_notebook_asks_for() -> None:
    from tailmatch import SettingsError, load
    from tailmatch.lightning_modules.inference import trained_network

    assert load is trained_network.load and issubclass(SettingsError, ValueError)
    assert tailmatch.callbacks.DARP and tailmatch.datamodules.Digits
    assert {"load", "SettingsError", "datamodules"} <= set(dir(tailmatch))
    with pytest.raises(AttributeError, match="no attribute 'FixMatch'"):  # class paths are those of the packages
        tailmatch.FixMatch  # noqa: B018
