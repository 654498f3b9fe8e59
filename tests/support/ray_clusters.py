"""A Ray of two CPUs in a process of its own, of which nothing is left behind."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

START = """
import logging, sys, ray
ray.init(
    "local",
    num_cpus=2, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False,
    logging_level=logging.ERROR, _node_ip_address="127.0.0.2", _temp_dir=sys.argv[1],
)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
# No FORWARD_* of whoever runs the tests, no report to Ray's makers, no GPU.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("FORWARD_")},
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_AUTH_MODE": "token",  # or Ray writes one into the home folder
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "CUDA_VISIBLE_DEVICES": "",
}


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Run Ray on the loopback address; yield its address."""
    # The paths of Ray's sockets must be short.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    with subprocess.Popen(
        [sys.executable, "-c", START, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            assert address, "Ray did not start"
            yield address
        finally:
            end_family(process.pid, process)
            shutil.rmtree(folder, ignore_errors=True)


def end_family(pid: int, process: subprocess.Popen[str]) -> None:
    """End a process by closing its input, and what it leaves by SIGKILL."""
    family = family_of(pid)
    with contextlib.suppress(OSError):
        if process.stdin:
            process.stdin.close()
    _, alive = psutil.wait_procs(family, timeout=30)
    for one in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(alive, timeout=30)


def family_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that it started."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
