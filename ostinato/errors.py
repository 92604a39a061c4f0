"""The exceptions that end a command, each with its exit code."""


class Refused(Exception):
    """The user can correct this: the message says how. Nothing was changed. Exit code 2."""


class Stopped(Exception):
    """The update was tried and failed. The project is unchanged. Exit code 1."""
