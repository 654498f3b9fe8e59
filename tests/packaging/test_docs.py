"""The documentation is complete, its links lead somewhere and its examples run."""

import re
from pathlib import Path

import pytest

from docs import settings
from server import errors
from tests.support.bundles import REPOSITORY
from tests.support.servers import RunningServer

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "training/*.md")
    for path in REPOSITORY.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.M | re.S)


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of one."""
    found = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_heading(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](page.md#a-heading) [b](#none) [c](gone.md)\n")
    assert dead_links(page) == ["#none", "gone.md"]


@pytest.mark.parametrize("name", settings.PAGES)
def test_the_reference_of_settings_is_what_make_docs_writes(name: str) -> None:
    assert (settings.REFERENCE / name).read_text() == settings.page(*settings.PAGES[name])


def test_the_reference_of_errors_has_every_status() -> None:
    page = (REPOSITORY / "docs/reference/errors.md").read_text()
    statuses = {
        one.status
        for one in vars(errors).values()
        if isinstance(one, type) and issubclass(one, errors.ServiceError) and "status" in vars(one)
    }
    assert len(statuses) > 5
    assert {status for status in statuses if f"`{status}`" not in page} == set()


def test_the_readme_is_read_in_two_screens() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 140


@pytest.mark.parametrize("name", ["README.md", "docs/guides/calling.md"])
def test_the_examples_in_python_run(
    name: str, served: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(
        r"^```python\n(import numpy.*?)^```$", (REPOSITORY / name).read_text(), re.M | re.S
    )
    assert blocks
    for block in blocks:
        assert "localhost:8001" in block
        code = block.replace("localhost:8001", served.address)
        exec(compile(code, name, "exec"), {})  # noqa: S102 (the documentation's own code)
    assert "relu" in capsys.readouterr().out
