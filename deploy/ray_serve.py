"""The page and its APIs on a Ray cluster, drawn by as many replicas as are asked for.

    ray start --head
    serve run deploy.ray_serve:app loopback=true max_replicas=2

docs/cluster.md describes it.
"""

# Without `from __future__ import annotations`: Ray Serve reads the type of what `app` is given.
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig

from deploy.cluster.drawer import Drawer
from deploy.cluster.page import Cluster, Page
from sampling.generator import AppGenerator, Generator
from sampling.lazy_generators import DescribedGenerator
from webapp.worker import MAX_BATCH

if TYPE_CHECKING:
    from ray.serve import Application

RETRY_SECONDS = 5  # of 503, when more requests wait than a page can answer
HEALTH_SECONDS = 5.0  # between two looks at a replica


def app(cluster: Cluster) -> "Application":
    """What Ray Serve runs: `import_path: deploy.ray_serve:app`, with a Cluster as its `args`."""
    load = partial(
        Generator.load,
        cluster.model,
        device=cluster.device,
        dtype=cluster.dtype,
        backend=cluster.backend,
    )
    DescribedGenerator(cluster.model)  # a wrong name is refused here, not by every replica
    return application(partial(DescribedGenerator, cluster.model), load, cluster)


def application(
    describe: Callable[[], AppGenerator], load: Callable[[], AppGenerator], cluster: Cluster
) -> "Application":
    """The page of a generator: `describe` makes what says what it is, in each page's process, and
    `load` what draws, in each replica's. Raises UserError for settings that let others in unasked.
    """
    cluster.password()
    num_gpus = _gpus_of_cluster() if cluster.num_gpus is None else cluster.num_gpus
    drawings = cluster.drawings or (MAX_BATCH if num_gpus else 1)
    drawer = serve.deployment(Drawer).options(
        ray_actor_options={"num_gpus": num_gpus, "num_cpus": cluster.num_cpus},
        max_ongoing_requests=drawings,
        health_check_period_s=HEALTH_SECONDS,
        autoscaling_config=AutoscalingConfig(
            min_replicas=cluster.min_replicas,
            max_replicas=cluster.max_replicas,
            initial_replicas=cluster.min_replicas,
            target_ongoing_requests=drawings,
            upscale_delay_s=cluster.upscale_delay_s,
            downscale_delay_s=cluster.downscale_delay_s,
        ),
    )
    more = {}
    if cluster.pages > 1:
        router = RequestRouterConfig(request_router_class="deploy.cluster.router.AddressRouter")
        more["request_router_config"] = router
    page = serve.deployment(serve.ingress()(Page)).options(
        num_replicas=cluster.pages,
        ray_actor_options={"num_cpus": cluster.page_cpus},
        max_ongoing_requests=cluster.max_requests,
        max_queued_requests=cluster.max_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=RETRY_SECONDS),
        health_check_period_s=HEALTH_SECONDS,
        **more,
    )
    at_once = cluster.max_replicas * drawings
    return page.bind(drawer.bind(load), describe, cluster, at_once)


def _gpus_of_cluster() -> int:
    """GPUs of a replica, where nobody has said: 1 if there is one anywhere."""
    return int(ray.is_initialized() and ray.cluster_resources().get("GPU", 0) > 0)
