"""The processors that a container grants, not those of its host."""

import os
from pathlib import Path

import pytest

from server.engine.cpus import available_cpus


@pytest.fixture(autouse=True)
def eight_in_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("own", "parent", "expected"),
    [
        ("max 100000", "max 100000", 8),
        ("300000 100000", "max 100000", 3),
        ("max 100000", "250000 100000", 2),
        ("600000 100000", "400000 100000", 4),
        ("50000 100000", "max 100000", 1),
        ("1600000 100000", "max 100000", 8),
        ("garbage", "200000 100000", 2),
    ],
)
def test_the_smallest_quota_on_the_way_up_decides(
    tmp_path: Path, own: str, parent: str, expected: int
) -> None:
    (tmp_path / "pod" / "box").mkdir(parents=True)
    (tmp_path / "pod" / "box" / "cpu.max").write_text(f"{own}\n")
    (tmp_path / "pod" / "cpu.max").write_text(f"{parent}\n")
    (tmp_path / "cgroup").write_text("0::/pod/box\n")
    assert available_cpus(tmp_path, tmp_path / "cgroup") == expected


def test_without_cgroups_the_affinity_decides(tmp_path: Path) -> None:
    assert available_cpus(tmp_path / "none", tmp_path / "none") == 8


@pytest.mark.parametrize(
    ("place", "quota", "expected"),
    [("cpu/pod/box", 300_000, 3), ("cpu/pod", 50_000, 1), ("cpu", 200_000, 2), ("cpu", -1, 8)],
)
def test_cgroups_of_version_1_count_as_well(
    tmp_path: Path, place: str, quota: int, expected: int
) -> None:
    """A container sees its own as the top one: the path of its line leads nowhere."""
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / place / "cpu.cfs_period_us").write_text("100000\n")
    lines = "5:memory:/pod/box\n4:cpu,cpuacct:/pod/box\n1:name=systemd:/pod/box\n0::/pod/box\n"
    (tmp_path / "cgroup").write_text(lines)
    assert available_cpus(tmp_path, tmp_path / "cgroup") == expected
