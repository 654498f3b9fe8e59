"""Command line of the server: `python -m server`."""

import signal
import sys
from collections.abc import Sequence

if __name__ == "__main__":  # before the imports, which take a while: SIGHUP ends no server
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

import uvloop

from export.errors import ExportError
from export.settings import read_settings
from server.app import serve
from server.config import ServerSettings
from server.errors import StartError
from server.logs import configure_logs


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; return the exit status."""
    settings = read_settings(ServerSettings, arguments)
    configure_logs(settings.log_level, settings.log_format)
    try:
        uvloop.run(serve(settings))
    except (ExportError, StartError) as error:
        print(f"python -m server: can't start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while it started
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
