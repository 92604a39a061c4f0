"""How a command ends when it does not end well."""


class Refused(Exception):
    """One clear sentence for the person at the terminal; nothing was changed. Exit code 2."""


class Stopped(Exception):
    """The update was tried and does not fit: the project is as it was. Exit code 1."""
