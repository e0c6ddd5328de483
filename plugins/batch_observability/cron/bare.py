"""
What the standard library has, without what takes long to load: `batchobs run` is in the way of every job.

The enums of `signal` take half as long to make as Python takes to start, and `contextlib` a quarter.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from contextlib import suppress
else:
    import _signal as signal

    class suppress:  # noqa: N801  (it is called as a function is)
        """As `contextlib.suppress`."""

        def __init__(self, *errors: type[BaseException]) -> None:
            self._errors = errors

        def __enter__(self) -> None:
            pass

        def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
            return kind is not None and issubclass(kind, self._errors)


__all__ = ["signal", "suppress"]
