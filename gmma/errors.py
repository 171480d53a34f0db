"""The one exception a user is meant to read."""


class UserError(Exception):
    """A mistake found at the edge: a config field, a file, a dataset record, a checkpoint.

    The message says what was wrong, shows the numbers, and says the fix. The command line prints it
    without a traceback and exits with code 2.
    """
