"""Batch scoring with Ray Data: `python -m deploy.ray score IN OUT`."""
