"""What benchmarks/ray_serve.py serves: a generator that sleeps through its steps."""

# Without `from __future__ import annotations`: Ray Serve reads the type of what it gives.
from functools import partial

from benchmarks.load_server import Books, SleepingGenerator
from deploy.cluster.page import Cluster
from deploy.ray_serve import application

STEP_SECONDS = 0.05


def sleeping(cluster: Cluster):
    """The page of a generator that takes 50 ms a step and no processor."""
    load = partial(SleepingGenerator, STEP_SECONDS, Books())
    return application(load, load, cluster)
