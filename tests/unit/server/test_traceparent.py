"""The traceparent header, read by the rules of W3C Trace Context, level 1 and 2.

The oracle is OpenTelemetry's own propagator, where it is as strict as the recommendation.
"""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.observability.traceparent import TraceParent, parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEX = "0123456789abcdef"

digits = st.text(HEX, min_size=1)
trace_ids = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")
span_ids = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
# Near what is right: parts of about the right lengths, joined by what may be a dash.
parts = st.one_of(digits, st.text(HEX + "AFgx -", max_size=34), trace_ids, span_ids, st.just("00"))
nearly = st.lists(parts, max_size=6).map("-".join)


@given(trace_ids, span_ids, st.booleans())
def test_what_is_written_is_read_again(trace_id: str, span_id: str, is_sampled: bool) -> None:
    parent = TraceParent(trace_id, span_id, is_sampled)
    assert parse_traceparent(str(parent)) == parent


@given(trace_ids, span_ids, st.integers(0, 255))
def test_only_the_flag_of_sampling_counts(trace_id: str, span_id: str, flags: int) -> None:
    parent = parse_traceparent(f"00-{trace_id}-{span_id}-{flags:02x}")
    assert parent == TraceParent(trace_id, span_id, flags % 2 == 1)


@given(st.one_of(st.text(), nearly))
@example(f"00-{TRACE}-{SPAN}-01")
@example(f"01-{TRACE}-{SPAN}-01-what the future brings")
def test_opentelemetry_reads_the_same(text: str) -> None:
    context = TraceContextTextMapPropagator().extract({"traceparent": text})
    span = trace.get_current_span(context).get_span_context()
    found = parse_traceparent(text)
    if found is not None:
        expected = (span.trace_id, span.span_id, span.trace_flags.sampled)
        assert (int(found.trace_id, 16), int(found.span_id, 16), found.is_sampled) == expected
    elif text == text.strip() and text.isascii():  # it strips, and its digits are any script's
        assert not span.is_valid


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-0x",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
    ],
    ids=repr,
)
def test_what_is_not_of_the_form_is_ignored(text: str) -> None:
    assert parse_traceparent(text) is None


@pytest.mark.parametrize("rest", ["", "-", "-what the future brings"], ids=repr)
def test_a_later_version_is_read_as_this_one(rest: str) -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01{rest}") == TraceParent(TRACE, SPAN, True)
