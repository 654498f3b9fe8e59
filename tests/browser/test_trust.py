"""Trust: bounds and certificates are the server's, and the browser's own pass is float32's."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from export.bundle import Bundle
from export.bundle.manifest import HISTORY_FILE
from export.bundle.weights import read_weights
from export.writers import write_all
from forward.v1 import forward_pb2 as pb
from tests.support.bundles import history_of, republish
from tests.support.pages import SEVEN, OpenPage, float32s, trace_of
from tests.support.panels import (
    calls,
    column,
    image_tensor,
    look,
    pixels,
    rows,
    sequential_pass,
    serving,
)
from tests.support.servers import RunningServer

SHAPE = (28, 28)
WHISKERS, STAGES, RUNTIMES = "The whisker", "Your browser", "Distance from"


def test_bounds_and_certificate_are_the_servers(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "trust")
    trace = trace_of(web.address, page.images(), SHAPE, certify=True)
    logits = float32s(trace.logits)[0]
    np.testing.assert_array_equal(column(section, WHISKERS, 1).astype(np.float32), logits)
    np.testing.assert_array_equal(column(section, STAGES, 2), [s.bound for s in trace.stages])
    said = section.locator("p data").get_attribute("value")
    assert float(str(said)) == trace.stages[-1].bound
    (certificate,) = trace.certificates
    assert certificate.certified
    assert section.locator(".verdict").text_content() == "Certified: 7"
    lengths = section.locator(".lengths data").evaluate_all("(all) => all.map((one) => one.value)")
    assert [float(one) for one in lengths] == [certificate.gap, certificate.bound]
    best, nearest = (
        rows(section, WHISKERS)[label][1].decimal
        for label in (certificate.predicted_class, certificate.nearest_class)
    )
    lead = str(section.locator(".lengths data").first.text_content())
    assert Decimal(lead) == best - nearest  # to the last digit that is shown


def test_the_browser_computes_the_pass_in_float32(
    page: OpenPage, web: RunningServer, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    section = look(page, "trust")
    mine = sequential_pass(weights, pixels(page))
    trace = trace_of(web.address, page.images(), SHAPE, certify=True)
    differences = [
        abs(mine[stage.name].astype(float) - float32s(stage.values)[0].ravel()).max()
        for stage in trace.stages
    ]
    np.testing.assert_array_equal(column(section, STAGES, 1), differences)
    assert differences[-1] < 2 * trace.stages[-1].bound
    expected = mine["output"].astype(float) - float32s(trace.logits)[0]
    np.testing.assert_array_equal(column(section, WHISKERS, 3), expected)
    share = max(d / s.bound for d, s in zip(differences, trace.stages, strict=True) if d)
    text = str(section.get_by_text("It differs from the server by at most").text_content())
    said = float(text.partition("at most ")[2].split()[0])
    assert said == pytest.approx(100 * share, rel=0.05)
    dots = section.locator(".whisker i").evaluate_all(
        "(dots) => dots.map((dot) => parseFloat(dot.style.left))"
    )
    np.testing.assert_allclose(dots, 50 + 45 * expected / trace.stages[-1].bound, atol=1e-3)


def test_changes_are_left_out(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    page.page.evaluate(
        "async () => (await import('/main.js')).app.store.set("
        "{ interventions: [{ stage: 'relu', zero: true }] })"
    )
    section = look(page, "trust")
    section.get_by_text("without your changes").wait_for()
    logits = float32s(trace_of(web.address, page.images(), SHAPE).logits)[0]
    np.testing.assert_array_equal(column(section, WHISKERS, 1).astype(np.float32), logits)


def test_runtimes_are_compared_by_the_server(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "trust")
    section.get_by_role("button", name="Compare the runtimes").focus()
    page.page.keyboard.press("Enter")
    section.get_by_text("All stay within their bounds").wait_for(timeout=120_000)
    with calls(web) as stub:
        answer = stub.Compare(pb.CompareRequest(images=image_tensor(page)), timeout=120)
    expected = [
        (runtime.runtime, stage.stage, stage.max_error, stage.max_bound_share)
        for runtime in answer.runtimes
        for stage in runtime.stages
    ]
    table = rows(section, RUNTIMES)
    shown = [(r[0].text, r[1].text, r[2].number, r[3].number) for r in table]
    assert shown == expected
    assert {row[4].text for row in table} == {"0"}
    summary = f"{len(answer.runtimes)} runtimes, 1 digit."
    assert section.get_by_text(summary).count() == 1


def test_a_decision_that_is_not_certain_is_told(
    visit: Callable[..., OpenPage], tiny: Bundle, tmp_path: Path
) -> None:
    weights = dict(read_weights(tiny))
    for name in ("linear2.weight", "linear2.bias"):  # two equal scores
        weights[name] = np.concatenate([weights[name][:1]] * 2)
    files = write_all(tiny.manifest.stages, weights, 0, 1)
    record = {HISTORY_FILE: history_of(3)}  # else Chromium logs that there is none
    alike = republish(tiny, tmp_path / "alike", {**files, **record})
    with serving(alike) as server:
        page = visit(server)
        page.open()
        section = look(page, "trust")
        assert section.get_by_text("Not certified: cat or dog").count() == 1
        page.page.close()  # it would miss the server
