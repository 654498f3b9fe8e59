"""The client's command in the checkout: `python -m client` is `forward-client`."""

import runpy

runpy.run_module("forward_client", run_name="__main__")
