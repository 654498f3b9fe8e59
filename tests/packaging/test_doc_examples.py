"""Every code block of the READMEs, the quickstart and the guides runs against a real server."""

from pathlib import Path

import pytest

from tests.support.bundles import REPOSITORY, publish_random_bundle
from tests.support.documents import Page, unknown_blocks
from tests.support.servers import RunningServer

PAGES = (
    REPOSITORY / "README.md",
    REPOSITORY / "client/README.md",
    REPOSITORY / "docs/quickstart.md",
    *sorted((REPOSITORY / "docs/guides").glob("*.md")),
)
# Blocks that are not run, with their reasons in the pages: a new one is added here, too.
SKIPPED = {
    "README.md": 1,
    "client/README.md": 1,
    "docs/guides/calling.md": 1,
    "docs/guides/container.md": 5,
    "docs/guides/deployment.md": 1,
    "docs/guides/export-and-verify.md": 1,
    "docs/guides/kubernetes.md": 3,
    "docs/guides/monitoring.md": 1,
    "docs/guides/native-transport.md": 1,
    "docs/guides/observability.md": 2,
    "docs/guides/proxy.md": 2,
    "docs/guides/ray.md": 2,
    "docs/guides/training.md": 1,
}


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_code_block_runs(
    path: Path, tmp_path: Path, served: RunningServer, triton_python: str
) -> None:
    with Page(path, tmp_path, served, triton_python) as page:
        publish_second_version(tmp_path / "new")
        page.run()
    assert len(page.skipped) == SKIPPED.get(name_of(path), 0), page.skipped


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_block_is_run_or_marked(path: Path) -> None:
    assert unknown_blocks(path) == []


def publish_second_version(models_dir: Path) -> None:
    """Publish version 2 of a network of MNIST's shape, for the guide of versions."""
    (models_dir / "mnist" / "1").mkdir(parents=True)
    publish_random_bundle(models_dir, "mnist", (28, 28), tuple("0123456789"))


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ("```sh\nfalse | cat\n```", "exit status 1"),
        ("```sh\necho $UNKNOWN\n```", "UNKNOWN: unbound variable"),
        ("```sh\nmake serve ARGS=--unknown\n```", "unknown"),
        ("```sh\ngrpcurl -plaintext localhost:8001 forward.v1.ForwardService/None\n```", "None"),
        ('```python\nprint("one")  # two\n```', "expected 'two' in 'one"),
        ("```python\n1 / 0\n```", "division by zero"),
        ("<!-- skip: next -->\n\n```sh\nfalse\n```", "why?"),
    ],
    ids=["status", "variable", "server", "method", "output", "exception", "no reason"],
)
def test_a_broken_block_is_found(
    block: str, text: str, tmp_path: Path, served: RunningServer
) -> None:
    path, folder = tmp_path / "page.md", tmp_path / "checkout"
    path.write_text(f"# Page\n\n{block}\n")
    folder.mkdir()
    with (
        pytest.raises((AssertionError, ZeroDivisionError), match=text.replace("?", r"\?")),
        Page(path, folder, served, "") as page,
    ):
        page.run()


def test_the_flags_of_make_test_reach_no_block(
    tmp_path: Path, served: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test ARGS=...` has them in the environment, and the blocks of a page run make."""
    monkeypatch.setenv("MAKEFLAGS", " -- ARGS=--unknown")
    monkeypatch.setenv("ARGS", "--unknown")
    path, folder = tmp_path / "page.md", tmp_path / "checkout"
    path.write_text("```sh\nmake serve\n```\n")
    folder.mkdir()
    with Page(path, folder, served, "") as page:
        page.run()
    assert page.ran == 1


def test_an_unknown_language_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("```console\n$ true\n```\n\n```text\noutput\n```\n")
    assert unknown_blocks(path) == ["console"]
