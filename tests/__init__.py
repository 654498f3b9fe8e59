"""The tests, in as many processes as the machine has cores: each computes with one thread.

Threads of OpenMP wait for each other by spinning; with two in each of two processes on two cores,
evaluating a network took ten times the CPU. It is set before torch and NumPy are imported, and
what the tests start inherits it.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
