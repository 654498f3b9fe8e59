"""The second screen: where the time goes, and the state of everything that there are metrics of."""

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from docs.dashboards.panels import (
    OURS,
    THEIRS,
    Limits,
    Panels,
    Query,
    lines,
    numbers,
    page_of_servers,
    rate,
    rows,
)

UID = "forward-details"
PREDICT = f'{OURS}, batcher="predict"'
RECENT = "[$__rate_interval]"
SOON = "[5m]"
MEAN = ("sum", "count")  # of a histogram, divided


def details() -> Dashboard:
    """Return the dashboard."""
    text = "Where the time goes, and the state of everything."
    board = page_of_servers(UID, "Forward: details", text)
    for title, panels in (
        ("Calls", _calls()),
        ("Where the time of a call goes", _times()),
        ("Batches and the queue", _batches()),
        ("Connections", _connections()),
        ("Model and files", _model()),
        ("Drift", _drift()),
        ("Process", _process()),
    ):
        board = board.with_row(Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return board


def _slowest(
    title: str, description: str, metric: str, by: str, matcher: str = OURS
) -> Builder[Panel]:
    """Return the panel of the 99th percentile of a histogram of seconds."""
    buckets = rate(f"{metric}_bucket", f"le, {by}", matcher)
    query = Query(f"histogram_quantile(0.99, {buckets})", f"{{{{{by}}}}}")
    return lines(f"{title}, 99%", description, query, unit="s")


def _present(title: str, description: str, metric: str, by: str) -> Builder[Panel]:
    """Return the panel of a counter's rate, of what happens at all."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    matcher = THEIRS if metric.startswith("grpc_") else OURS
    query = Query(f"{rate(metric, by, matcher)} > 0", legend)
    return lines(title, description, query, unit="cps")


def _gauge(title: str, description: str, metric: str) -> Builder[Panel]:
    return lines(title, description, Query(f"{metric}{{{OURS}}}", "{{instance}}"))


def _calls() -> Panels:
    yield _present("Calls by method", "Over gRPC.", "grpc_server_handled_total", "grpc_method")
    yield _slowest(
        "Time of a call",
        "In the server, over gRPC; of a stream, until its end.",
        "grpc_server_handling_seconds",
        "grpc_method",
        THEIRS,
    )
    text = "That have begun and not ended, of every transport."
    yield _gauge("Calls in flight", text, "forward_calls_in_flight")
    text = "The page and the probes, too."
    yield _present("HTTP requests by route", text, "forward_http_requests_total", "http_route")
    text = "Until its response was sent."
    yield _slowest("Time of an HTTP request", text, "forward_http_request_seconds", "http_route")
    lane = f"sum(rate(forward_lane_calls_total{{{OURS}}}{RECENT}))"
    yield lines(
        "Calls in the lane",
        "The share of the calls that the native transport answers by itself, and whether it does "
        "so now (1): 0 with --transport python.",
        Query(f"{lane} / sum(rate(grpc_server_handled_total{{{THEIRS}}}{RECENT}))", "share"),
        Query(f"min(forward_lane_on{{{OURS}}})", "on"),
        unit="percentunit",
    )


def _mean(histogram: str, matcher: str, by: str) -> str:
    parts = (f"sum by ({by}) (rate({histogram}_{end}{{{matcher}}}{RECENT}))" for end in MEAN)
    return " / ".join(parts)


def _times() -> Panels:
    parts = {"queue": "wait for a run", "run": "run", "encode": "encode"}
    yield lines(
        "Parts of a call, mean",
        "Of the batcher predict. A run is shared by the requests in it.",
        *(
            Query(_mean(f"forward_{each}_seconds", PREDICT, "batcher"), parts[each])
            for each in parts
        ),
        unit="s",
    )
    text = "Until the run of the request began."
    yield _slowest("Wait for a run", text, "forward_queue_seconds", "batcher")
    text = "Of the runtime, for all requests in it."
    yield _slowest("Run", text, "forward_run_seconds", "batcher")
    yield _slowest("Encode", "To make the response.", "forward_encode_seconds", "batcher")
    yield lines(
        "Busy",
        "Seconds of computing in a second: with --threads 1, 1 is all there is.",
        Query(rate("forward_run_seconds_sum", "instance"), "{{instance}}"),
    )
    trace = (
        rate(f"forward_trace_{what}_total", "detail") for what in ("response_bytes", "responses")
    )
    yield lines(
        "Bytes in a response of Trace, mean",
        "By how much of the stages they have.",
        Query(" / ".join(trace), "{{detail}}"),
        unit="bytes",
    )


def _batches() -> Panels:
    for what in ("images", "requests"):
        yield lines(
            f"{what.capitalize()} in a run, mean",
            "In a good batch each costs less.",
            Query(_mean(f"forward_run_{what}", OURS, "batcher"), "{{batcher}}"),
        )
    text = "Computed in a second."
    yield lines("Images", text, Query(rate("forward_images_total", "batcher"), "{{batcher}}"))
    queue = f"forward_queue_images{{{OURS}}} / forward_queue_limit_images{{{OURS}}}"
    yield lines(
        "Queue",
        "Images that wait or run, of their limit (--max-queue-images).",
        Query(queue, "{{instance}}"),
        unit="percentunit",
        limits=Limits(red=0.8),
    )
    yield lines(
        "Oldest request in the queue",
        "How long it has waited. Above 5 s: ForwardQueueStalled.",
        Query(f"forward_queue_oldest_seconds{{{OURS}}}", "{{batcher}} {{instance}}"),
        unit="s",
        limits=Limits(red=5),
    )
    yield _present("Refused calls", "By the reason.", "forward_rejected_total", "reason")


def _connections() -> Panels:
    yield lines(
        "Open connections",
        "Those of gRPC with the native transport alone.",
        Query(f"sum by (transport) (forward_connections{{{OURS}}})", "{{transport}}"),
    )
    closed = rate("forward_connections_closed_total", "transport, reason")
    yield lines(
        "Opened and closed",
        "In a second; closed by the reason.",
        Query(rate("forward_connections_opened_total", "transport"), "opened {{transport}}"),
        Query(f"{closed} > 0", "closed {{transport}} {{reason}}"),
        unit="cps",
    )
    text = "Over --max-connections, or a handshake that failed."
    yield _present("Refused", text, "forward_connections_refused_total", "transport, reason")


def _model() -> Panels:
    hidden = ("Time", "__name__", "job", "Value")
    model = f"forward_model_info{{{OURS}}}"
    names = {"manifest_sha256": "manifest"}
    yield rows("Served model", "By server.", model, hidden, names).span(16)
    yield numbers(
        "Self-check",
        "The largest error of the logits when the version was loaded, of the bound.",
        Query(f"max(forward_self_check_error_ratio{{{OURS}}})", "of the bound"),
        unit="percentunit",
        limits=Limits(yellow=0.5, red=0.8),
    ).height(8)
    expiry = f"forward_tls_certificate_expiry_timestamp_seconds{{{OURS}}}"
    yield (
        numbers(
            "Certificate",
            "Until the first of them expires.",
            Query(f"min({expiry} - time()) / 86400", "days"),
            unit="d",
        )
        .height(8)
        .no_value("no TLS")
    )
    yield lines(
        "Reloads",
        "In 5 minutes: versions that took the place of another, and attempts that failed.",
        Query(
            f"sum by (result) (increase(forward_model_reloads_total{{{OURS}}}{SOON}))", "{{result}}"
        ),
    )
    yield lines(
        "Up to date",
        "1: the version is served that should be, and the certificates and tokens in use are those "
        "of their files.",
        Query(f"min(forward_model_last_reload_successful{{{OURS}}})", "model"),
        Query(f"min by (files) (forward_files_last_reload_successful{{{OURS}}})", "{{files}}"),
    )
    loaded = f"forward_model_last_reload_success_timestamp_seconds{{{OURS}}}"
    yield lines(
        "Age of the served version",
        "Since it was loaded.",
        Query(f"time() - {loaded}", "{{instance}}"),
        unit="dtdurations",
    )


def _drift() -> Panels:
    yield lines(
        "Population-stability index",
        "Against the training set: above 0.1 look at it, above 0.25 it has shifted.",
        Query(f"max by (feature) (forward_drift_psi{{{OURS}}})", "{{feature}}"),
        limits=Limits(yellow=0.1, red=0.25),
    )
    classes = f"rate(forward_predicted_class_total{{{OURS}}}{RECENT})"
    yield lines(
        "Predicted classes",
        "The share of each.",
        Query(f"sum by (class) ({classes}) / scalar(sum({classes}))", "{{class}}"),
        unit="percentunit",
    )
    text = "Images in the window; the index needs 500."
    yield _gauge("Samples", text, "forward_drift_samples")
    histograms = {
        "forward_prediction_confidence": "Confidence",
        "forward_prediction_gap": "Gap of the two largest logits",
        "forward_input_intensity": "Mean pixel",
        "forward_input_ink": "Share of ink",
    }
    for name, title in histograms.items():
        buckets = rate(f"{name}_bucket", "le")
        shares = (0.1, 0.5, 0.9)
        yield lines(
            title,
            "10%, median and 90% of the sampled images.",
            *(Query(f"histogram_quantile({each}, {buckets})", f"{each:.0%}") for each in shares),
            width=6,
        )


def _process() -> Panels:
    yield lines(
        "CPU",
        "Seconds in a second.",
        Query(rate("process_cpu_seconds_total", "instance", THEIRS), "{{instance}}"),
    )
    yield lines(
        "Memory",
        "Resident.",
        Query(f"process_resident_memory_bytes{{{THEIRS}}}", "{{instance}}"),
        unit="bytes",
    )
    yield lines(
        "Open files",
        "Of the most that there may be.",
        Query(f"process_open_fds{{{THEIRS}}} / process_max_fds{{{THEIRS}}}", "{{instance}}"),
        unit="percentunit",
        limits=Limits(red=0.9),
    )
    text = "How late its timer fires."
    yield _slowest("Event loop's lag", text, "forward_event_loop_lag_seconds", "instance")
    yield lines(
        "Garbage collections",
        "In a second, by the generation.",
        Query(rate("python_gc_collections_total", "generation", THEIRS), "{{generation}}"),
        unit="cps",
    )
    failures = f"sum by (task) (increase(forward_background_failures_total{{{OURS}}}{SOON})) > 0"
    lane = f"sum(increase(forward_lane_observations_dropped_total{{{OURS}}}{SOON}))"
    yield lines(
        "Background failures and dropped lines",
        "In 5 minutes.",
        Query(failures, "{{task}}"),
        Query(f"sum(increase(forward_log_lines_dropped_total{{{OURS}}}{SOON}))", "log lines"),
        Query(lane, "calls of the lane"),
        Query(f"sum(increase(forward_spans_dropped_total{{{OURS}}}{SOON}))", "spans"),
    )
    transport = f"on (instance) group_left (transport) forward_transport_info{{{OURS}}}"
    yield rows(
        "Builds",
        "By server.",
        f"forward_build_info{{{OURS}}} * {transport}",
        ("Time", "__name__", "job", "Value"),
        {},
    ).span(24)
