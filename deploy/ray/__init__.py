"""Forward on many machines, by Ray: `python -m deploy.ray`."""
