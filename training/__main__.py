"""Command line of the training package: `python -m training`."""

import signal

from export.signals import end_at_once_on, interrupt_on

if __name__ == "__main__":  # before the other imports, which take a while
    end_at_once_on(signal.SIGTERM, signal.SIGINT)

import os
import sys
from collections.abc import Sequence

from export.errors import HOW_TO_GET_TORCH, ExportError
from export.output import make_console, print_error, run_command
from export.settings import read_settings
from training.config import PROGRAM, TrainingSettings
from training.errors import TrainingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, publish, and return the exit status."""
    settings = read_settings(TrainingSettings, arguments)
    # cuBLAS computes the same bits every time only with this, read at its start.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    interrupt_on(signal.SIGINT)
    try:
        # Here, for --help and wrong settings to be answered without torch.
        if settings.add_reference:
            from training.reference import add_reference  # noqa: PLC0415

            add_reference(settings.add_reference, settings, make_console())
        else:
            from training.train import train  # noqa: PLC0415

            train(settings, make_console())
    except ModuleNotFoundError as error:
        print_error(PROGRAM, f"needs {error.name!r}; {HOW_TO_GET_TORCH}")
        return 1
    except (TrainingError, ExportError, OSError) as error:
        print_error(PROGRAM, str(error))
        return 1
    except KeyboardInterrupt:
        print_error(
            PROGRAM,
            "interrupted; nothing was published; --resume continues after the last whole epoch",
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, main))
