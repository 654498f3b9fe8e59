"""What the server does before its slow imports. This module imports little itself."""

import os
import signal

from export.signals import end_at_once_on


def prepare_process() -> None:
    """End at once on SIGTERM and SIGINT, ignore SIGHUP and SIGUSR1, reserve descriptors 0 to 2.

    NumPy's library of linear algebra starts no threads of its own: for matrices of this size they
    cost more than they save, and they would take the processors of other requests' runs.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when NumPy is imported
    end_at_once_on(signal.SIGTERM, signal.SIGINT)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    reap_orphans()
    reserve_standard_descriptors()


def reap_orphans() -> None:
    """Let the kernel reap, if this is a container's first process, to which it gives orphans.

    They are left by what was run in the container beside it: health checks, shells.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def reserve_standard_descriptors() -> None:
    """Open /dev/null in the place of standard streams that were closed (`2>&-`).

    Else the next file or connection would get the number 2, and lines that gRPC's own code
    writes to standard error.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
