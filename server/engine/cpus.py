"""How many processors this process may use: of a container, not of its host."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def available_cpus(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> int:
    """Return the processors of the affinity, or fewer if a cgroup (version 2) grants fewer."""
    granted = len(os.sched_getaffinity(0))
    for folder in _folders(cgroups, own_cgroup):
        quota = _quota(folder / "cpu.max")
        if quota is not None:
            granted = min(granted, max(1, int(quota)))
    return granted


def _folders(cgroups: Path, own_cgroup: Path) -> list[Path]:
    """Return the folder of this process's cgroup and those of all above it."""
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        return [cgroups]
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = cgroups / own
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(cgroups))]


def _quota(file: Path) -> float | None:
    """Return the processors that a cpu.max grants, None without a limit."""
    try:
        quota, period = file.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
