"""The errors that callers branch on. Everything else that a caller got wrong is a plain `ValueError`.

Each message says where, what was needed, what came, and what to do.
"""

from __future__ import annotations


class AvelError(Exception):
    """Base of the project's own errors; the command line prints its message and no traceback."""


class MediaError(AvelError):
    """A medium that cannot be used; it becomes a row of the store, never an exception of the job.

    Attributes:
        reason: one of `catalog.video.REASONS`.
        detail: what was seen, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class AnnotationError(AvelError, ValueError):
    """An annotation file that is wrong or damaged: names the file, the line (or key) and the field."""


class RecipeMismatch(AvelError, ValueError):
    """A store or run holds a recipe of this name with other settings.

    Attributes:
        differences: (field, stored, wanted) for each setting that differs.
    """

    def __init__(self, message: str, differences: list[tuple[str, object, object]]) -> None:
        super().__init__(message)
        self.differences = differences


class StoreError(AvelError):
    """A store that is absent, damaged or of a format this version does not read."""


class StoreBusy(StoreError):
    """Another writer holds this store; the message says who and how to wait."""


class BadArguments(ValueError):
    """The command line asks for something impossible; exit status 2."""
