"""Errors that speak to the user."""


class UserError(ValueError):
    """Something the user gave is not what was expected: a key, a file, a weight, a checkpoint.

    The message names it, says what was expected and what to do. `jaxvpr.main` prints it without a traceback and leaves
    with status 2.
    """


class HostLost(Exception):
    """Another host of the run is gone or did not come: nothing is wrong with what the user gave.

    `jaxvpr.main` prints it without a traceback and leaves with status `AGAIN`, at which a launcher may start all hosts
    again.
    """


AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same command may succeed later
