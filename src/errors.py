"""Failures a user can cause and mend. Each message is one line: what, the limit, the remedy."""


class UserError(Exception):
    """Something failed; the command ends with status 1."""

    status = 1


class UsageError(UserError):
    """The command was used wrongly; it ends with status 2."""

    status = 2
