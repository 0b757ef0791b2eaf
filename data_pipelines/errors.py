"""Errors that a user sees as one message, without a traceback."""


class DataError(ValueError):
    """A data set, file, row or key is not what was expected.

    The message names the file, row or key, says what was expected and what to do about it.
    `jaxvpr.main` prints it without a traceback and leaves with status 2.
    """
