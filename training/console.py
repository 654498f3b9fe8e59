"""The console command `forward-train`: what `python -m training` runs."""

import runpy


def main() -> None:
    """Run the command as the main module: it sets its signals before its other imports."""
    runpy.run_module("training", run_name="__main__")
