"""Errors that a user sees as one message, without a traceback."""


class DataError(ValueError):
    """A data set, file, row or key is wrong.

    The message names it, what was expected and what to do.
    `jaxvpr.main` prints it without a traceback and leaves with status 2.
    """
