"""Errors that end a training; the text of each says what to do."""


class TrainingError(Exception):
    """Base of these errors."""


class DatasetError(TrainingError):
    """The dataset is not available or damaged."""


class CheckpointError(TrainingError):
    """The training can't be continued."""


class ConfigurationError(TrainingError):
    """This machine can't do what the settings ask for."""
