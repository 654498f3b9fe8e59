"""The console command `forward-client`: what `python -m forward_client` runs."""

import runpy


def main() -> None:
    """Run the command as the main module: it sets its signals before its other imports."""
    runpy.run_module("forward_client", run_name="__main__")
