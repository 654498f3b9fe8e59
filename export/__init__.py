"""Export: bundles, the runtimes that run them, and the proof that they agree."""
