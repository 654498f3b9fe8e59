"""The runbook as a dashboard: the paragraphs of docs/guides/runbook.md, beside the alerts."""

import re

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel

from docs.dashboards.panels import page, words

UID = "forward-runbook"
CHAPTER = re.compile(r"^## (.+)$", re.M)
PARAGRAPH = re.compile(r"^### (\w+)$", re.M)
# Links are words here: a panel of text has no anchors, and Grafana has no other pages of ours.
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
LINES_OF_ROW, CHARACTERS_OF_LINE = 1.3, 105  # of Grafana's grid, in a panel of half its width


def runbook(page_text: str) -> Dashboard:
    """Return the dashboard of the runbook's text."""
    board = page(UID, "Forward: runbook", "What each alert means, and what to do.")
    introduction, *chapters = CHAPTER.split(page_text)
    _, _, introduction = introduction.partition("\n")
    board = board.with_panel(_panel("In any case", introduction, 24))
    for title, text in zip(chapters[::2], chapters[1::2], strict=True):
        board = board.with_row(Row(title))
        _, *paragraphs = PARAGRAPH.split(text)
        for name, paragraph in zip(paragraphs[::2], paragraphs[1::2], strict=True):
            board = board.with_panel(_panel(name, paragraph, 12))
    return board


def _panel(title: str, text: str, width: int) -> Builder[Panel]:
    plain = LINK.sub(r"\1", text).strip()
    length = sum(1 + len(line) // (CHARACTERS_OF_LINE * width // 12) for line in plain.splitlines())
    return words(title, plain, width=width, height=2 + round(length / LINES_OF_ROW))
