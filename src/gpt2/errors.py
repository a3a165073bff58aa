"""Failures a user can cause and mend. Each message is one line: what, the limit, the remedy."""


class Error(Exception):
    """Something failed; a command ends with status 1."""

    status = 1


class UsageError(Error, ValueError):
    """A command or function was used wrongly; a command ends with status 2."""

    status = 2
