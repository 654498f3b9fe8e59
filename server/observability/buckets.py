"""Upper bounds of the buckets of histograms."""

# Seconds, from a forward of one image to a full batch on a busy machine.
SECONDS_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
IMAGES_BUCKETS = tuple(2**power for power in range(13))
