"""The command `score`: `python -m deploy.ray score IN OUT`."""

import signal
from collections.abc import Sequence

from deploy.ray.score.config import PROGRAM, ScoreSettings
from deploy.ray.score.errors import ScoreError
from deploy.ray.score.progress import Summary
from deploy.ray.score.run import score
from export.errors import ExportError
from export.output import make_console, print_error, printable
from export.settings import read_settings
from export.signals import interrupt_on

# Exit statuses; wrong settings are 2.
ALL_GOOD, FAILED, BAD_ROWS, INTERRUPTED = 0, 1, 3, 130
SHOWN_FAILURES = 10
CONTINUE = "the same command continues"


def main(arguments: Sequence[str]) -> int:
    """Score, print the summary, and return the exit status."""
    settings = read_settings(ScoreSettings, arguments)
    console = make_console()
    interrupt_on(signal.SIGINT)
    interrupt_on(signal.SIGTERM)
    try:
        summary = score(settings, console)
    except (ScoreError, ExportError, OSError) as error:
        print_error(PROGRAM, str(error))
        return FAILED
    except KeyboardInterrupt:
        print_error(PROGRAM, f"interrupted; {CONTINUE} after what is written")
        return INTERRUPTED
    console.print(
        f"{summary.rows:,} images scored in all, {summary.bad:,} bad rows", soft_wrap=True
    )
    return _judge(settings, summary)


def _judge(settings: ScoreSettings, summary: Summary) -> int:
    """Say what is not as it should be; return the exit status."""
    for failure in summary.failures[:SHOWN_FAILURES]:
        print_error(PROGRAM, f"can't be read now: {printable(failure)}")
    if summary.failures:
        print_error(
            PROGRAM,
            f"{len(summary.failures)} files or parts of files were not read; {CONTINUE} with them",
        )
        return FAILED
    if summary.bad:
        print_error(PROGRAM, f"the bad rows and their reasons are in {settings.output}/bad-rows")
        return BAD_ROWS
    return ALL_GOOD
