"""The application as Ray Serve deploys it: options of proxies and replicas, of the settings."""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, ProxyLocation
from ray.serve.config import gRPCOptions as GrpcOptions
from ray.serve.schema import LoggingConfig, ProxyStatus

from deploy.ray.serve.config import RayServeSettings
from deploy.ray.serve.replica import ForwardReplica
from deploy.ray.serve.scaling import wanted_replicas

DEPLOYMENT = "ForwardReplica"
SERVICER_FUNCTION = "deploy.ray.serve.ingress:add_services"
# The queue that refuses is a replica's own, of images. Ray's, of requests, is above it.
MAX_ONGOING_REQUESTS = 100_000
# Replicas of a new version that start before old ones stop, of a hundred; one at least.
MAX_SURGE_PERCENT = 25
DRAIN_POLL_SECONDS = 0.5
LOOK_BACK_SECONDS = 20.0  # replicas report every 10; of the queue's mean, which autoscaling goes by
UNUSABLE = {ProxyStatus.STARTING, ProxyStatus.UNHEALTHY}
HEALTH_SECONDS = 2.0  # between Ray's health checks, and as long for the answer
HEALTH_TIMEOUT_SECONDS = 10.0


def start_proxies(settings: RayServeSettings) -> None:
    """Start Ray's proxies, or keep them if they run: their ports can't change."""
    serve.start(**proxy_options(settings), logging_config=_logging(settings))


def proxy_options(settings: RayServeSettings) -> dict[str, Any]:
    """Return how Ray's proxies listen, and where."""
    location = ProxyLocation.EveryNode
    if settings.ray_proxies == "head":
        location = ProxyLocation.HeadOnly
    return {
        "proxy_location": location,
        "http_options": HTTPOptions(host=settings.host, port=int(settings.http_port)),
        "grpc_options": GrpcOptions(
            port=settings.grpc_port,
            grpc_servicer_functions=[SERVICER_FUNCTION],
            enable_reflection=False,  # replicas answer it
        ),
    }


def deploy(settings: RayServeSettings) -> None:
    """Deploy the application and wait until it runs; one that runs is updated, replica by replica.

    Raises:
        RuntimeError: it does not start.
    """
    deployment: Any = serve.deployment(ForwardReplica)
    updated = deployment.options(**deployment_options(settings))
    serve.run(updated.bind(settings), name=settings.ray_name, route_prefix="/")


def deployment_options(settings: RayServeSettings) -> dict[str, Any]:
    """Return how many replicas there are, what each has, and how they start and stop."""
    return {
        "name": DEPLOYMENT,
        "max_ongoing_requests": MAX_ONGOING_REQUESTS,
        "max_surge_percent": MAX_SURGE_PERCENT,
        "graceful_shutdown_wait_loop_s": DRAIN_POLL_SECONDS,
        "graceful_shutdown_timeout_s": settings.drain_timeout,
        "health_check_period_s": HEALTH_SECONDS,
        "health_check_timeout_s": HEALTH_TIMEOUT_SECONDS,
        "ray_actor_options": {"num_cpus": settings.ray_cpus, "num_gpus": settings.ray_gpus},
        "logging_config": _logging(settings),
        **_replicas(settings),
    }


def proxies_are_healthy() -> bool:
    """Tell if every proxy can be used but those that Ray ends, of nodes without a replica."""
    states = set(serve.status().proxies.values())
    return ProxyStatus.HEALTHY in states and not states & UNUSABLE


def failure_of(application: str) -> str:
    """Return why an application does not run, as far as Ray knows; "" if it does not."""
    status = serve.status().applications.get(application)
    deployments = status.deployments.values() if status else ()
    return "; ".join(each.message for each in deployments if each.message)


def _replicas(settings: RayServeSettings) -> dict[str, Any]:
    if settings.max_replicas == settings.ray_min_replicas:
        return {"num_replicas": settings.ray_min_replicas}
    autoscaling = AutoscalingConfig(
        min_replicas=settings.ray_min_replicas,
        max_replicas=settings.max_replicas,
        target_ongoing_requests=settings.ray_target_queue_images,
        upscale_delay_s=settings.ray_upscale_delay,
        downscale_delay_s=settings.ray_downscale_delay,
        look_back_period_s=LOOK_BACK_SECONDS,
        policy=AutoscalingPolicy(policy_function=wanted_replicas),  # type: ignore[no-untyped-call] # Ray gives it no types
    )
    return {"autoscaling_config": autoscaling}


def _logging(settings: RayServeSettings) -> LoggingConfig:
    """Return how Ray logs: from warnings on. Calls are in the replicas' own access log."""
    level = settings.log_level.upper()
    level = level if level in {"ERROR", "DEBUG"} else "WARNING"
    return LoggingConfig(log_level=level, enable_access_log=False)
