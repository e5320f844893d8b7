"""The command line in a process of its own, as a user calls it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def call(*args: str) -> subprocess.CompletedProcess[str]:
    """What came of `tailmatch ARGS`."""
    return subprocess.run(
        [sys.executable, "cli.py", *args], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )


def tailmatch(*args: str) -> str:
    """What `tailmatch ARGS` printed; it must end well."""
    result = call(*args)
    assert result.returncode == 0, result.stderr
    return result.stdout
