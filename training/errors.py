"""What can keep training from its end; the text of each names the ways out."""


class TrainingError(Exception):
    """Base of the errors that end a training with one clear text."""


class DatasetError(TrainingError):
    """The dataset is not available."""


class CheckpointError(TrainingError):
    """The training can't be continued."""


class ConfigurationError(TrainingError):
    """This machine can't do what the settings ask for."""
