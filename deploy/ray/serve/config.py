"""Settings of `python -m deploy.ray serve`: those of the server, and of Ray."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from server.addresses import unix_path
from server.config import MAX_SECONDS, ServerSettings

PROGRAM = "python -m deploy.ray serve"
# Of the server's own ports. Ray's proxies have the ports here, and settings for none of these.
OF_OWN_PORTS = (
    *("tls_cert", "tls_key", "tls_client_ca", "health_needs_token"),
    *("max_connections", "max_concurrent_streams", "max_metadata_bytes"),
    *("max_connection_age", "keepalive_time", "drain_delay"),
)


class RayServeSettings(ServerSettings):
    """Serve the forward pass of a bundle from a Ray cluster, over gRPC and HTTP."""

    model_config = SettingsConfigDict(env_prefix="FORWARD_", cli_prog_name=PROGRAM)
    other_prefixes: ClassVar[tuple[str, ...]] = (
        *("FORWARD_TRAINING_", "FORWARD_CLIENT_"),
        "FORWARD_SCORE_",
    )

    transport: Literal["auto", "python", "native"] = Field(
        "auto", description="What carries gRPC: Ray's proxies, so native stops the start."
    )
    grpc_port: int = Field(
        8001, ge=1, le=65535, description="Port of gRPC on each node, on all of its addresses."
    )
    http_port: Annotated[int, Field(ge=1, le=65535)] | Literal["off"] = Field(
        8000,
        description="Port of HTTP on each node: the page, Connect, the Open Inference Protocol; "
        "Ray's proxies always have one, so off stops the start.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of each replica's metrics; 0 takes a free one, as replicas that share a "
        "node need.",
    )
    ray_address: str = Field(
        "local",
        description="Cluster to serve from: auto is the one of this machine, HOST:PORT another; "
        "local starts one for as long as the command runs.",
    )
    ray_name: str = Field(
        "forward", min_length=1, description="Name of the application in the cluster."
    )
    ray_min_replicas: int = Field(
        1, ge=1, le=10_000, description="Replicas to start with, and the fewest."
    )
    ray_max_replicas: int | None = Field(
        None, ge=1, le=10_000, description="Most replicas; --ray-min-replicas if not given."
    )
    ray_cpus: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="Processors that Ray reserves for a replica."
    )
    ray_gpus: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="GPUs, or a share of one, for a replica."
    )
    ray_target_queue_images: float = Field(
        256.0,
        gt=0,
        allow_inf_nan=False,
        description="Images that should wait or run in a replica on average: with more in all, "
        "replicas are added, with fewer, removed.",
    )
    ray_upscale_delay: float = Field(
        10.0,
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Seconds that more replicas must be wanted before they are started.",
    )
    ray_downscale_delay: float = Field(
        300.0,
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Seconds that fewer replicas must be wanted before some are stopped.",
    )
    ray_proxies: Literal["every-node", "head"] = Field(
        "every-node",
        description="Nodes that listen: every one that has a replica, and the head; or that alone.",
    )
    ray_discovery_port: int = Field(
        8003,
        ge=0,
        le=65535,
        description="Port on this node that tells Prometheus of every replica's metrics; 0 takes a "
        "free one.",
    )
    ray_detach: bool = Field(
        False,
        description="Return when every replica serves, and leave the application running.",
    )

    @property
    def max_replicas(self) -> int:
        """Return the most replicas."""
        return self.ray_max_replicas or self.ray_min_replicas

    @model_validator(mode="after")
    def _fits_ray(self) -> Self:
        if self.max_replicas < self.ray_min_replicas:
            raise ValueError(
                f"--ray-max-replicas {self.ray_max_replicas} is below --ray-min-replicas "
                f"{self.ray_min_replicas}"
            )
        if self.transport == "native":
            raise ValueError("--transport native: Ray's proxies carry gRPC; leave it out")
        if self.http_port == "off":
            raise ValueError("--http-port off: Ray's proxies always listen for HTTP")
        if unix_path(self.host):
            raise ValueError(f"--host {self.host}: Ray's proxies listen on no sockets")
        if self.ray_detach and self.ray_address == "local":
            raise ValueError("--ray-detach needs the --ray-address of a cluster that goes on")
        for field in OF_OWN_PORTS:
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(
                    f"{self.flag(field)}: Ray's proxies have no such setting; put a proxy that "
                    "has it before them"
                )
        return self
