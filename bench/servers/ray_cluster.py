"""A Ray cluster of several nodes on this machine: `python -m bench.servers.ray_cluster NODES CPUS`.

Prints its address. Each line on standard input kills the newest node that is not the head, at
once, and is answered by a line; the end of the input ends the cluster, and what was deployed to
it: so all of it ends, too, when whoever started it is killed.
"""

import os
import sys
import tempfile
from typing import Any

from ray.cluster_utils import Cluster

from bench.servers.ray import MARK, end_marked

OBJECT_STORE_BYTES = 80 * 1024 * 1024  # the least that Ray takes is 75 MiB
LOOPBACK = "127.0.0.2"  # in the place of .1 Ray puts the address of the network


def main() -> None:
    """Serve until the end of standard input."""
    nodes, cpus = int(sys.argv[1]), float(sys.argv[2])
    # Not below a folder of the caller's: the names of Ray's sockets have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        each: Any = {
            "num_cpus": cpus,
            "object_store_memory": OBJECT_STORE_BYTES,
            "node_ip_address": LOOPBACK,
            "include_dashboard": False,
            "include_log_monitor": False,  # it sends the workers' lines to the driver
            "temp_dir": folder,
        }
        cluster = Cluster(initialize_head=True, head_node_args=each)
        try:
            workers = [cluster.add_node(**each) for _ in range(nodes - 1)]
            print(cluster.address, flush=True)
            for _line in sys.stdin:
                cluster.remove_node(workers.pop(), allow_graceful=False)
                print("killed", flush=True)
        finally:
            cluster.shutdown()  # type: ignore[no-untyped-call] # Ray gives it no types
            end_marked(os.environ[MARK])


if __name__ == "__main__":
    main()
