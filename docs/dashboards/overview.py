"""The first screen: is it down, slow, full, wrong, since when, and what do I do."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue

from docs.dashboards.panels import (
    OURS,
    THEIRS,
    Limits,
    Panels,
    Query,
    event,
    lines,
    numbers,
    page_of_servers,
    rate,
    rows,
    with_link,
    with_other,
    with_word,
    words,
)

UID = "forward-overview"
FIRING = (
    'ALERTS_FOR_STATE{alertname=~"Forward.+"} '
    'and ignoring (alertstate) ALERTS{alertname=~"Forward.+", alertstate="firing"}'
)
LIMIT = f"forward_queue_limit_images{{{OURS}}}"
REFUSED = 'sum(rate(forward_rejected_total{reason=~"queue_full|comparisons_full"}[5m]))'
WHAT_TO_DO = """\
1. **What fires** (below): its name leads to its paragraph of the [runbook](/d/forward-runbook).
2. Nothing fires? [Details](/d/forward-details): where the time goes.
3. Just after a release or a reload (the vertical lines)? Go back first.
"""


def overview() -> Dashboard:
    """Return the dashboard."""
    text = "Is it down, slow, full or wrong, since when, and what do I do?"
    board = page_of_servers(UID, "Forward", text)
    for name, metric, color in (
        ("model loaded", f"forward_model_last_reload_success_timestamp_seconds{{{OURS}}}", "blue"),
        ("server started", f"process_start_time_seconds{{{THEIRS}}}", "orange"),
    ):
        board = board.annotation(event(name, f"changes({metric}[1m]) > 0", color))
    for panel in (*_questions(), *_since_when(), *_over_time()):
        board = board.with_panel(panel)
    return board


def _questions() -> Panels:
    down = numbers(
        "Is it down?",
        "Servers that Prometheus cannot scrape; 1 also if it knows of none.",
        Query('sum(up{job="forward"} == bool 0) or absent(up{job="forward"})', "down"),
        unit="none",
        limits=Limits(red=1),
    )
    yield with_word(down, "0", "no: all are up")
    yield numbers(
        "Is it slow?",
        "99th percentile of Predict over gRPC in the last 5 minutes. The objective: under 50 ms.",
        Query(f"histogram_quantile(0.99, {buckets('5m')})", "99%"),
        unit="s",
        limits=Limits(yellow=0.025, red=0.05),
    ).no_value("no calls")
    full = numbers(
        "Is it full?",
        "How much of a queue was taken at most in the last 5 minutes (--max-queue-images), and "
        "the share of their calls that were refused for it.",
        Query(f"max(max_over_time(forward_queue_images{{{OURS}}}[5m]) / {LIMIT})", "queue"),
        Query(f"{REFUSED} / sum(job:forward_calls:rate5m)", "refused"),
        unit="percentunit",
        limits=Limits(yellow=0.5, red=0.8),
    ).no_value("no calls")
    yield with_other(full, "refused", "percentunit", Limits(yellow=0.001, red=0.01))
    wrong = numbers(
        "Is it wrong?",
        "The share of the calls of the last 5 minutes that failed by the server, and the largest "
        "population-stability index: above 0.25 the images or the predictions are no longer "
        "like those of the training.",
        Query("max(job:forward_failed_calls:ratio_rate5m)", "failed"),
        Query(f"max(forward_drift_psi{{{OURS}}})", "drift"),
        unit="percentunit",
        limits=Limits(yellow=0.001, red=0.0144),
    ).no_value("no calls")
    yield with_other(wrong, "drift", "short", Limits(yellow=0.1, red=0.25))
    yield numbers(
        "Since when?",
        "How long the oldest alert has been there that fires now.",
        Query(f"time() - min({FIRING})", "for"),
        unit="dtdurations",
        limits=Limits(red=0),
    ).no_value("nothing fires")
    yield words("What do I do?", WHAT_TO_DO)


def _since_when() -> Panels:
    firing = rows(
        "What fires, and since when",
        "Alerts that fire. Their names lead to the runbook.",
        f"1000 * ({FIRING})",
        hidden=("Time", "__name__", "job"),
        names={"alertname": "alert", "Value": "since"},
    ).no_value("nothing fires")
    since = [DynamicConfigValue("unit", "dateTimeFromNow")]
    yield with_link(firing, "alert", "/d/forward-runbook").override_by_name("since", since)
    yield lines(
        "Calls by status",
        "Over gRPC, all methods.",
        Query(f"{rate('grpc_server_handled_total', 'grpc_code', THEIRS)} > 0", "{{grpc_code}}"),
        unit="reqps",
        width=6,
    )
    yield lines(
        "HTTP requests by status",
        "Of the page and the probes, too.",
        Query(f"{rate('forward_http_requests_total', 'http_code')} > 0", "{{http_code}}"),
        unit="reqps",
        width=6,
    )


def _over_time() -> Panels:
    recent = buckets("$__rate_interval")
    shares = (0.5, 0.9, 0.99)
    yield lines(
        "Latency of Predict",
        "Time in the server over gRPC. The objective, dashed: 99% under 50 ms.",
        *(Query(f"histogram_quantile({share}, {recent})", f"{share:.0%}") for share in shares),
        unit="s",
        limits=Limits(red=0.05),
        width=6,
    )
    windows = {"5m": "5 minutes", "1h": "1 hour", "6h": "6 hours"}
    yield lines(
        "Failures by the server",
        "The share of the calls. Above the dashed line the error budget of 30 days lasts 2 days.",
        *(Query(f"job:forward_failed_calls:ratio_rate{each}", windows[each]) for each in windows),
        unit="percentunit",
        limits=Limits(red=0.0144),
        width=6,
    )
    yield lines(
        "Queue",
        "Images that wait or run, and their limit (--max-queue-images).",
        Query(f"forward_queue_images{{{OURS}}}", "{{instance}}"),
        Query(f"max({LIMIT})", "limit"),
        width=6,
    )
    yield lines(
        "Refused calls",
        "By the reason.",
        Query(f"{rate('forward_rejected_total', 'reason')} > 0", "{{reason}}"),
        unit="reqps",
        width=6,
    )


def buckets(window: str) -> str:
    """Return the buckets of the latency of Predict."""
    found = f'grpc_server_handling_seconds_bucket{{{THEIRS}, grpc_method="Predict"}}'
    return f"sum by (le) (rate({found}[{window}]))"
