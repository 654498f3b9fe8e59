"""The console command `forward-server`: what `python -m server` runs."""

import runpy


def main() -> None:
    """Run the command as the main module: it sets its signals before its other imports."""
    runpy.run_module("server", run_name="__main__")
