"""Errors that a user sees as one message, without a traceback."""

import reprlib


class DataError(ValueError):
    """A data set, file, row or key is wrong.

    The message names it, what was expected and what to do.
    `jaxvpr.main` prints it without a traceback and leaves with status 2.
    """


class _Short(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxstring = self.maxother = 120
        self.maxlist = self.maxtuple = 20
        self.maxlevel = 3

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if abs(value) < 1 << 128 else f"an integer of {value.bit_length()} bits"

    def repr_ndarray(self, value, level: int) -> str:
        return self.repr1(value.tolist(), level)


short = _Short().repr  # what a file holds, as a message shows it: never longer than a few lines


def option_of(reader: str, option: str) -> str:
    """Where a user gives an option of a reader, as a message says it."""
    return (
        f"the reader's option {option} (--reader={reader},{option} for folders of the command line, options.{option} "
        "of the data set in a recipe)"
    )
