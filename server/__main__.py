"""Command line of the server: `python -m server`."""

from server.start import prepare_process

if __name__ == "__main__":  # before the other imports, which take a while
    prepare_process()

import sys
from collections.abc import Sequence

import structlog
import uvloop

from export.errors import ExportError
from export.settings import read_settings
from server.app import serve
from server.config import PROGRAM, ServerSettings
from server.errors import StartError
from server.observability.lines import redirect_standard_error
from server.observability.logging import configure_logs

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; return the exit status."""
    lines = redirect_standard_error()
    settings = read_settings(ServerSettings, arguments)
    configure_logs(settings.log_level, settings.log_format)
    if links := ServerSettings.links_named_like_settings():
        log.info(
            "service links of Kubernetes are named like settings and set nothing; "
            "enableServiceLinks: false leaves them out",
            variables=links,
        )
    try:
        uvloop.run(serve(settings, lines))
    except (ExportError, StartError) as error:
        print(f"{PROGRAM}: can't start: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
