"""
Fields that all log lines of a context carry from here on: of a thread, a task of asyncio, or a block.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from structlog.contextvars import bind_contextvars, reset_contextvars, unbind_contextvars


class Bound:
    """What `bind` has bound; as a context manager it takes it back at the end of its block."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._tokens = bind_contextvars(**fields)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for name, token in self._tokens.items():
            try:
                reset_contextvars(**{name: token})
            except (ValueError, RuntimeError):
                # A generator may end in another context than it began in.
                unbind_contextvars(name)


def bind(**fields: Any) -> Bound:
    """
    Add fields to all log lines of this context, plain `logging` ones too: `bind(batch=3)`.

    From here on, or, as a context manager, in its block only: `with bind(batch=3): ...`.
    """
    return Bound(fields)


def unbind(*names: str) -> None:
    """Take back fields that `bind` has added; those that are not there are no error."""
    unbind_contextvars(*names)
