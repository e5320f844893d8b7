"""Import what the commands of the table need; the server does so once, before it forks."""

import os
from contextlib import redirect_stderr, suppress
from io import StringIO
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import pytest  # noqa: E402, F401
import torch  # noqa: E402

import tailmatch.command_line.refine  # noqa: E402
import tailmatch.command_line.select  # noqa: E402
import tailmatch.lightning_modules.inference.export  # noqa: E402, F401
import tests.bad_inputs.engine  # noqa: E402, F401
from tailmatch.cli import main  # noqa: E402

torch.set_num_threads(1)

with suppress(SystemExit), redirect_stderr(StringIO()):
    main(["fit", "--config=demo.yaml", "--model.threshold=warm"])  # fills the caches of the parser

if Path("/proc/self/task").is_dir() and len(os.listdir("/proc/self/task")) > 1:
    raise RuntimeError("the server runs threads, so that its forks could hang")
