"""What nearfar raises when something the user gave cannot be used: what was wrong, where, and how to mend it."""

from __future__ import annotations


class NearfarError(Exception):
    """An error that is meant to be read by the user.

    ``message`` says what was wrong, ``where`` names the place (file, line, column, option), ``hint`` says how to mend
    it. The command line prints the three as one block without a traceback and exits with ``exit_code``.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.message = message
        self.where = where
        self.hint = hint
        super().__init__(self._text())

    def _text(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"where: {self.where}")
        if self.hint:
            parts.append(f"mend: {self.hint}")
        return "\n".join(parts)


class UsageError(NearfarError, ValueError):
    """An option or argument has a value that cannot be used (temperature 0, an unknown objective, ...)."""

    exit_code = 2


class DataError(NearfarError, ValueError):
    """A file cannot be read as the data it is said to be, or its content cannot be trained on or evaluated."""


class ModelError(NearfarError):
    """A folder or name is not a model that can be loaded safely, or lacks what is asked of it."""


class OutputError(NearfarError):
    """A result cannot be written where the user asked for it (exists, read-only, no space left)."""


class TrainingError(NearfarError):
    """Training cannot go on (the loss is not finite, a checkpoint does not belong to this run, ...)."""


class MissingExtraError(NearfarError, ImportError):
    """A part was used whose optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"this needs the package {package!r}, which is not installed", hint=f"pip install 'nearfar[{extra}]'"
        )
