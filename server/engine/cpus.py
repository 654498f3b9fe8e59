"""How many processors this process may use: of a container, not of its host."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> int:
    """Return the processors of the affinity, or fewer if a cgroup grants fewer."""
    granted = len(os.sched_getaffinity(0))
    for quota in _quotas(cgroups, own_cgroup):
        granted = min(granted, max(1, int(quota)))
    return granted


def _quotas(cgroups: Path, own_cgroup: Path) -> Iterator[float]:
    """Yield the limits of this process's cgroups and of all above them.

    Each line has a number, controllers and a path; those of version 2 name no controllers. A
    container may see its own cgroup as the top one, where that path does not lead to.
    """
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        lines = []
    fields = [line.split(":", 2) for line in (*lines, "0::/")]
    for _, controllers, path in (each for each in fields if len(each) == 3):
        is_first_version = "cpu" in controllers.split(",")
        if not is_first_version and controllers:
            continue
        top = cgroups / "cpu" if is_first_version else cgroups
        folder = top / path.lstrip("/")
        for each in (folder, *(above for above in folder.parents if above.is_relative_to(top))):
            quota = _first_quota(each) if is_first_version else _quota(each)
            if quota is not None:
                yield quota


def _quota(folder: Path) -> float | None:
    """Return the processors that a cpu.max grants, None without a limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _first_quota(folder: Path) -> float | None:
    """Return the processors that version 1 grants, None without a limit, which is -1 there."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 < period else None
