"""Settings of `python -m server`."""

import re
from itertools import combinations
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from export.bundle.folders import first_that_exists
from export.bundle.manifest import MAX_VERSION
from export.program import program_name
from export.settings import CommandSettings
from server.addresses import parse_host, unix_path

PROGRAM = program_name("server", "forward-server")
MAX_SECONDS = 86_400  # a day
# Shorter intervals would leave the server little time for anything else. 0 means never.
MIN_SECONDS = {"reload_interval": 0.1, "max_connection_age": 1.0, "keepalive_time": 1.0}
MIN_DRIFT_SAMPLES = 500  # in the window, for an index: with fewer it is above 0.1 by chance
ORIGIN = re.compile(r"\*|https?://[^\s/,@?#]+")  # RFC 6454: scheme, host, port; no path


class ServerSettings(CommandSettings):
    """Serve the forward pass of a bundle over gRPC and HTTP, with a page that shows it."""

    model_config = SettingsConfigDict(env_prefix="FORWARD_", cli_prog_name=PROGRAM)
    other_prefixes: ClassVar[tuple[str, ...]] = (
        *("FORWARD_TRAINING_", "FORWARD_CLIENT_"),
        *("FORWARD_RAY_", "FORWARD_SCORE_"),
    )

    models_dir: Annotated[Path, AfterValidator(first_that_exists)] = Field(
        Path("models"),
        description="Model repository, a folder: its bundles are in MODEL/VERSION/, or in VERSION/ "
        "if it is one model's. Of several, separated by colons, the first that exists.",
    )
    model: str = Field("mnist", description="Name of the model to serve.")
    model_version: int | None = Field(
        None, ge=1, le=MAX_VERSION, description="Version to serve; the newest if not given."
    )
    reload_interval: float = Field(
        15.0,
        description="Seconds between polls of the model repository for another version; 0: only "
        "on SIGHUP.",
    )
    runtime: Literal["onnx", "pt2", "torchscript"] = Field(
        "onnx", description="Runtime that computes; pt2 and torchscript need the train extra."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Device that computes. auto takes a GPU if the runtime gets one, else the CPU; "
        "cuda stops the start if the runtime does not get it.",
    )
    threads: int = Field(
        1,
        ge=0,
        le=1024,
        description="Threads of the runtime for one run; 0: as many processors as the process may "
        "use by its affinity and cgroup.",
    )
    host: Annotated[str, AfterValidator(parse_host)] = Field(
        "127.0.0.1",
        description="Name or IP address to listen on, or unix:/path of a socket for gRPC; "
        "localhost for both loopbacks, 0.0.0.0 for every interface.",
    )
    transport: Literal["auto", "python", "native"] = Field(
        "auto",
        description="What carries gRPC: python is grpcio, native the extension in Rust (`make "
        "native`), which takes less CPU; auto is native if that is installed.",
    )
    grpc_port: int = Field(8001, ge=0, le=65535, description="Port of gRPC; 0 takes a free one.")
    http_port: Annotated[int, Field(ge=0, le=65535)] | Literal["off"] = Field(
        8000,
        description="Port of HTTP: the page, Connect, gRPC-Web, the Open Inference Protocol; 0 "
        "takes a free one, off: none. On 127.0.0.1 if --host is a socket.",
    )
    http_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of other pages whose scripts may call over HTTP (CORS), such as "
        "https://example.com, separated by commas; *: any. None by default.",
    )
    metrics_host: Annotated[str, AfterValidator(parse_host)] | None = Field(
        None,
        description="Name or IP address to listen on for the metrics; --host if not given, and "
        "127.0.0.1 if that is a socket.",
    )
    metrics_port: int = Field(
        8002, ge=0, le=65535, description="Port of the metrics, /metrics; 0 takes a free one."
    )
    tls_cert: Path | None = Field(
        None,
        description="PEM file of the certificate, with its chain, for TLS on the gRPC and HTTP "
        "ports; reloaded when it changes.",
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the certificate's key, without a passphrase."
    )
    tls_client_ca: Path | None = Field(
        None, description="PEM file of CAs; only clients with a certificate of theirs may connect."
    )
    token_file: Path | None = Field(
        None,
        description="File of tokens, one a line; only calls with one of them are answered. "
        "Reloaded when it changes.",
    )
    health_needs_token: bool = Field(
        False, description="Require a token for health checks, too; needs --token-file."
    )
    max_batch_images: int = Field(
        1024,
        ge=1,
        le=65536,
        description="Maximum images in a request, and in a batch of requests.",
    )
    max_queue_delay_ms: float = Field(
        5.0,
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="Maximum milliseconds that a request waits in the batcher for "
        "concurrent ones; 0: it never waits.",
    )
    max_queue_images: int = Field(
        8192,
        ge=1,
        le=2**31 - 1,
        description="Maximum images that wait or run at a time, over all requests; a request "
        "beyond that is refused with RESOURCE_EXHAUSTED.",
    )
    max_response_bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        le=2**31 - 1,
        description="Maximum bytes of a response of Trace, Attribute, GetTrainingHistory and "
        "GetParameters, and of ModelInfer with stages or classes; the default is the default limit "
        "of gRPC clients.",
    )
    max_comparisons: int = Field(
        1,
        ge=1,
        le=64,
        description="Maximum comparisons (Compare) that run at a time, each in a thread of its "
        "own; one beyond that is refused with RESOURCE_EXHAUSTED.",
    )
    compare_programs: bool = Field(
        False,
        description="Let Compare open TorchScript and pt2, too: their files are programs of "
        "whoever made the bundle. Needs the train extra.",
    )
    drain_timeout: float = Field(
        30.0,
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Seconds that running calls get to finish after SIGTERM or SIGINT, and when "
        "their connection is older than --max-connection-age.",
    )
    drain_delay: float = Field(
        0.0,
        ge=0,
        le=MAX_SECONDS,
        allow_inf_nan=False,
        description="Seconds to go on serving after SIGTERM or SIGINT, while health says "
        "NOT_SERVING, for load balancers that notice it late.",
    )
    max_connections: int = Field(
        900,
        ge=1,
        le=2**31 - 1,
        description="Maximum connections to the gRPC port, and to the HTTP port; a further one is "
        "closed at once. Fewer if the limit of open files (ulimit -Hn) is lower.",
    )
    max_concurrent_streams: int = Field(
        1024,
        ge=1,
        le=2**31 - 1,
        description="Maximum concurrent calls on one connection; the client queues further ones.",
    )
    max_metadata_bytes: int = Field(
        16 * 1024,
        ge=1024,
        le=16 * 1024 * 1024,
        description="Maximum bytes of metadata (headers) of a call; one with more is refused with "
        "RESOURCE_EXHAUSTED.",
    )
    max_connection_age: float = Field(
        0.0,
        description="Seconds after which clients are asked to reconnect, so that they spread over "
        "new replicas; 0: never.",
    )
    keepalive_time: float = Field(
        60.0,
        description="Seconds of silence after which a connection is pinged; one that does not "
        "answer in as long again, at most 20 s, is closed. 0: never.",
    )
    drift_window: int = Field(
        2048,
        le=65536,
        description="Sampled images, the last so many, that are compared with the training images "
        "for the metrics of drift; at least 500. 0: nothing is sampled.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Form of the log; auto is console on a terminal, else json."
    )

    access_log: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of calls that the log has a line of, 0 to 1; failures that are the "
        "server's own always have one.",
    )

    @field_validator(*MIN_SECONDS)
    @classmethod
    def _is_no_burden(cls, seconds: float, info: ValidationInfo) -> float:
        least = MIN_SECONDS[info.field_name or ""]
        if seconds != 0 and not least <= seconds <= MAX_SECONDS:  # so NaN is refused, too
            raise ValueError(f"expected 0, for never, or {least:g} to {MAX_SECONDS} seconds")
        return seconds

    @field_validator("drift_window")
    @classmethod
    def _is_enough(cls, images: int) -> int:
        if images != 0 and images < MIN_DRIFT_SAMPLES:
            raise ValueError(f"expected 0, for none, or at least {MIN_DRIFT_SAMPLES} images")
        return images

    @field_validator("http_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("http_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(f"expected origins such as https://example.com, got {origin!r}")
        return origins

    @field_validator("metrics_host")
    @classmethod
    def _is_no_socket(cls, host: str | None) -> str | None:
        if host and unix_path(host):
            raise ValueError("expected a name or an IP address: Prometheus scrapes no sockets")
        return host

    @property
    def host_of_http(self) -> str:
        """Return where HTTP listens."""
        return "127.0.0.1" if unix_path(self.host) else self.host

    @property
    def host_of_metrics(self) -> str:
        """Return where the metrics listen."""
        return self.metrics_host or self.host_of_http

    def _check_ports(self) -> None:
        listeners = (
            ("--grpc-port", self.host, self.grpc_port),
            ("--http-port", self.host_of_http, self.http_port),
            ("--metrics-port", self.host_of_metrics, self.metrics_port),
        )
        for (flag, host, port), (other, other_host, other_port) in combinations(listeners, 2):
            if port == other_port != 0 and host == other_host:
                raise ValueError(f"{flag} and {other} are both {port}")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_queue_images < self.max_batch_images:
            raise ValueError(
                f"--max-queue-images {self.max_queue_images} is below --max-batch-images "
                f"{self.max_batch_images}; the largest request could never be taken"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            given, other = ("cert", "key") if self.tls_cert else ("key", "cert")
            raise ValueError(f"--tls-{given} needs --tls-{other} beside it")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key beside it")
        if self.health_needs_token and not self.token_file:
            raise ValueError("--health-needs-token needs --token-file beside it")
        if self.max_connection_age and not self.drain_timeout:
            raise ValueError(
                "--max-connection-age needs --drain-timeout above 0: calls would be cut off when "
                "their connection is too old"
            )
        if self.http_origins and self.http_port == "off":
            raise ValueError("--http-origins needs --http-port, which is off")
        self._check_ports()
        return self
