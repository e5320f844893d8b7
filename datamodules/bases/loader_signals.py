"""Let loader processes continue when signals reach all processes of a run, as Ctrl-C and SLURM's do."""

import os
import signal
import sys
import threading


def leave_signals_to_parent(worker: int) -> None:
    """Prepare loader process number `worker` to end when its parent says so, and by no other's signal.

    The parent finishes the step in which a signal arrives, and a loader that died would break it. torch's loader ends
    its processes by SIGTERM if they do not end by themselves, so that this signal counts if it comes from the parent.
    """
    if sys.platform != "linux":  # elsewhere nothing tells who sent a signal
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    for signum in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
