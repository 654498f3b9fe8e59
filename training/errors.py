"""What can keep training from its data."""


class DatasetError(Exception):
    """The dataset can't be had; the text names the ways out."""
