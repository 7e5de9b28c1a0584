"""Error text: what a user reads of an exception."""

from __future__ import annotations

from trialbus.errors import TrialbusError


def describe_error(error: BaseException) -> str:
    """Return an exception as text for a user.

    The message alone says what is wrong where trialbus, the system or a database raised the
    exception. Of any other exception the class says as much as the message does.

    Example:
        >>> describe_error(OSError("disk full")), describe_error(KeyError("lr"))
        ('disk full', "KeyError: 'lr'")
    """
    cause = getattr(error, "orig", None)  # the database's exception in SQLAlchemy's
    text = str(cause or error).strip()
    if text and (cause is not None or isinstance(error, TrialbusError | OSError)):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
