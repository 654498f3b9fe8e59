"""How many connections the limit of open files allows."""

import resource

import structlog

# File descriptors for all else: libraries, listeners, models, scrapes.
OTHER_DESCRIPTORS = 64

log = structlog.get_logger()


def affordable_connections(wanted: int, ports: int) -> int:
    """Return how many connections each port may have, at most those wanted.

    The limit of open files is raised for them as far as the process may raise it. Without
    descriptors new connections would hang unanswered, and so would scrapes.
    """
    needed = wanted * ports + OTHER_DESCRIPTORS
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or needed <= limit:
        return wanted
    limit = needed if most == resource.RLIM_INFINITY else min(needed, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    if needed <= limit:
        return wanted
    affordable = max(1, (limit - OTHER_DESCRIPTORS) // ports)
    log.warning(
        "fewer connections than --max-connections: raise the limit of open files (ulimit -n)",
        max_connections=wanted,
        open_files=limit,
        connections=affordable,
    )
    return affordable
