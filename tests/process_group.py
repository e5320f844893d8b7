"""The end of a test's process that talked to others."""

import os
from typing import NoReturn


def leave() -> NoReturn:
    """End this process well, and at once.

    Before torch 2.8, `destroy_process_group` may hold Python's lock while it waits for a thread of gloo that waits for
    the lock (pytorch/pytorch, pull request 154976); without it, Python's own end may abort for the same reason.
    """
    os._exit(0)
