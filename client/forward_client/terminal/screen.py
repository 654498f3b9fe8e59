"""What the terminal can show."""

from dataclasses import dataclass
from typing import Self

from rich.console import Console


@dataclass(frozen=True)
class Screen:
    """A console, and whether it has colors, or characters of ASCII alone."""

    console: Console
    color: bool
    ascii_only: bool

    @classmethod
    def here(cls) -> Self:
        """Return standard output."""
        console = Console(highlight=False, markup=False, emoji=False)  # file names are no markup
        is_colored = console.color_system is not None and not console.no_color
        return cls(console, is_colored, console.options.ascii_only)
