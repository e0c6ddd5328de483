"""
Stages: the named parts of a run, one within the other.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from batch_observability.ambient import Place

if TYPE_CHECKING:
    from types import TracebackType


class _Run(Protocol):
    """Whose parts they are."""

    def _enter(self, stage: Stage) -> None: ...

    def _exit(self, stage: Stage, error: BaseException | None) -> None: ...


class Stage:
    """A named part of a run, a context manager from `Run.stage`. Ends as an error if its block raises."""

    def __init__(self, run: _Run, name: str) -> None:
        self._run = run
        self.name = name
        self.span_id = 0
        self._began = 0.0
        self._ended: float | None = None
        self._fields: dict[str, Any] = {}
        self._ambient: Place | None = None
        # From outside to inside, when it began.
        self._around: tuple[Stage, ...] = ()

    @property
    def _outer_open(self) -> Stage | None:
        around = still_open(self._around)
        return around[-1] if around else None

    @property
    def duration_s(self) -> float:
        """Seconds since the stage began, or that it took."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    def __enter__(self) -> Self:
        self._began, self._ended = time.monotonic(), None
        self._run._enter(self)  # noqa: SLF001  (Run and Stage are one thing in two classes)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ended = time.monotonic()
        self._run._exit(self, error)  # noqa: SLF001


def common(stages: list[Stage]) -> list[Stage]:
    """Return those that all others are within: tasks of asyncio have several open, none of which is the others'."""
    chain: list[Stage] = []
    while len(inner := [stage for stage in stages if stage._outer_open is (chain[-1] if chain else None)]) == 1:  # noqa: SLF001
        chain += inner
    return chain


def still_open(stages: tuple[Stage, ...]) -> list[Stage]:
    """Return those that have not ended: generators and tasks end them in any order."""
    return [stage for stage in stages if stage._ended is None]  # noqa: SLF001
