"""Export: bundles, the runtimes that run them, and their comparison."""
