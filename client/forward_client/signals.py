"""Signals that end the command at once. Imports nothing that takes time: it comes before the rest.

The same as in export/signals.py: the client depends on no other package of this repository.
"""

import os
import signal


def end_at_once_on(*numbers: signal.Signals) -> None:
    """Let signals end the process at once, without a traceback; one that is ignored stays so."""
    for number in numbers:
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        if os.getpid() == 1:  # of a container: the kernel discards what has the default action
            signal.signal(number, lambda number, _frame: os._exit(128 + number))
        else:
            signal.signal(number, signal.SIG_DFL)
