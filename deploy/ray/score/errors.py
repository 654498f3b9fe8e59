"""Errors of batch scoring."""


class ScoreError(Exception):
    """The scoring can't start or can't go on; the text is for the user."""
