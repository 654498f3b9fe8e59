"""The console command `forward-export`: what `python -m export` runs."""

import runpy


def main() -> None:
    """Run the command as the main module: it sets its signals before its other imports."""
    runpy.run_module("export", run_name="__main__")
