"""What a command may end with, beside success."""


class UserError(Exception):
    """Something the user asked for cannot be done; the message says what, and what could be."""

    status = 2


class RunError(UserError):
    """A run that had started could not go on."""

    status = 1
