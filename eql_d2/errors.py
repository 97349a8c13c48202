"""Exceptions for what a user can get wrong; everything else is an internal error.

The tools turn a :class:`UserError` into its message and exit code 2, without a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class UserError(ValueError):
    """The user's input is wrong. The message says what was expected, what came, and the fix."""


def message_of(error: UserError) -> str:
    """Return the message, without the traceback that it gets on its way from a loader's worker."""
    return str(error).rsplit(f"{type(error).__name__}: ", 1)[-1].strip()


class ConfigError(UserError):
    """One or more configuration values are wrong; all of them are named in one message."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
        else:
            lines = "\n".join(f"  {i}. {p}" for i, p in enumerate(self.problems, 1))
            super().__init__(f"{len(self.problems)} problems in the configuration:\n{lines}")


class DataError(UserError):
    """An annotation file or its images cannot be used as they are."""


class ResultsError(UserError):
    """A results file does not fit the annotations it is to be scored against."""


class MissingPackageError(UserError, ImportError):
    """An optional package is needed for what was asked; the message holds the install line."""
