"""Several replicas behind HAProxy: its configuration, and their restart one after the other."""
