"""Errors that speak to the user."""


class UserError(ValueError):
    """Something the user gave is not what was expected: a key, a file, a weight, a checkpoint.

    The message names it, says what was expected and what to do. `jaxvpr.main` prints it without a traceback and leaves
    with status 2.
    """
