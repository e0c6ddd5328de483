"""
What a failure is, in words that may leave the process: type, message, traceback, causes, notes and a fingerprint.

The fingerprint groups equal failures: it is made of types and of the frames of the user's code, and of nothing that
differs between hosts, runs and small edits. Standard library only: tasks describe their errors with it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

from batch_observability.redact import redact_text

_MAX_TEXT = 4000
_MAX_STACK = 12000
# Of causes and notes, each; a short text is enough to know them by.
_MAX_LISTED = 20
_MAX_LISTED_TEXT = 1000
# Errors that make a fingerprint: of all, or it would depend on the order of a group's members.
_MAX_COMPARED = 1000
# More is not looked at: to mask a text takes time.
_MAX_LOOKED_AT = 1_000_000


@dataclass(frozen=True)
class Failure:
    """
    An error, its texts masked and cut to size.

    `causes` holds "type: message" of what led to it, the nearest first, and of the members of exception groups;
    `notes` what was added to it by `add_note`. `fingerprint` is 16 hex digits.
    """

    kind: str
    message: str
    stack: str
    fingerprint: str
    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def describe(error: BaseException, redact: Callable[[str], str] = redact_text) -> Failure:
    """Return what there is to say of an error. Never raises, whatever the error does."""
    causes = [f"{_kind(cause)}: {_masked(_message(cause), redact)}" for cause in _related(error, _MAX_LISTED)]
    return Failure(
        kind=_kind(error),
        message=_head(_masked(_message(error), redact), _MAX_TEXT),
        stack=_tail(_masked(_stack(error), redact), _MAX_STACK),
        fingerprint=_fingerprint(error),
        causes=tuple(_head(cause, _MAX_LISTED_TEXT) for cause in causes),
        notes=tuple(_head(_masked(note, redact), _MAX_LISTED_TEXT) for note in _notes(error)),
    )


# --- Texts ------------------------------------------------------------------------------------------------------


def _kind(error: BaseException) -> str:
    return type(error).__qualname__


def _message(error: BaseException) -> str:
    try:
        return str(error)[:_MAX_LOOKED_AT]
    except Exception:
        # As `traceback` does: an error of user code whose own text fails is still an error.
        return "the error cannot be printed"


def _stack(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))[-_MAX_LOOKED_AT:]
    except Exception:
        return "".join(traceback.format_tb(error.__traceback__)) + f"{_kind(error)}: {_message(error)}\n"


def _notes(error: BaseException) -> list[str]:
    try:
        return [str(note)[:_MAX_LOOKED_AT] for note in list(getattr(error, "__notes__", ()))[:_MAX_LISTED]]
    except Exception:
        return ["the notes cannot be printed"]


def _masked(text: str, redact: Callable[[str], str]) -> str:
    try:
        return redact(text)
    except Exception:
        return "the text cannot be masked, and so not shown"


def _head(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    mark = f"… [cut: {len(text):,} characters]"
    return text[: size - len(mark)] + mark


def _tail(text: str, size: int) -> str:
    """Keep the end: of a traceback it says most."""
    if len(text) <= size:
        return text
    mark = f"[cut: {len(text):,} characters] …\n"
    return mark + text[len(mark) - size :]


# --- What led to it -----------------------------------------------------------------------------------------------


def _related(error: BaseException, limit: int) -> list[BaseException]:
    """Return causes, or contexts that are not suppressed, and members of groups: nearest first, each once."""
    found, seen = [error], {id(error)}
    for one in found:
        for another in _next(one):
            if id(another) not in seen and len(found) <= limit:
                seen.add(id(another))
                found.append(another)
    return found[1:]


def _next(error: BaseException) -> Iterator[BaseException]:
    if error.__cause__ is not None:
        yield error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__
    if isinstance(error, BaseExceptionGroup):
        yield from error.exceptions


# --- The fingerprint ----------------------------------------------------------------------------------------------

# Airflow loads DAG files under names that hold a hash of where they are.
_MANGLED = re.compile(r"unusual_prefix_[0-9a-f]+_")
# Of a script, or of a child process that has loaded it again.
_MAIN = frozenset({"__main__", "__mp_main__"})
# Frames that Python 3.12 no longer has.
_INLINED = ("<listcomp>", "<dictcomp>", "<setcomp>")


def _fingerprint(error: BaseException) -> str:
    try:
        # Of a group as a whole the kinds of its members count, not how many of each there are this time.
        parts = [_trace_of(error), *sorted({_trace_of(one) for one in _related(error, _MAX_COMPARED)})]
    except Exception:
        parts = [_kind(error)]
    return hashlib.sha256("\n\n".join(parts).encode(errors="backslashreplace")).hexdigest()[:16]


def _trace_of(error: BaseException) -> str:
    """Return the type of an error and where it went through: the user's code, or, if it is in none of it, all code."""
    kind = type(error)
    module = "__main__" if kind.__module__ in _MAIN else _MANGLED.sub("", str(kind.__module__))
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    places = [place for frame in frames if _is_users(frame.f_code.co_filename, _module_of(frame))
              if (place := _place(frame))] or [place for frame in frames if (place := _place(frame))]  # fmt: skip
    # Each once: how deep a recursion went is chance.
    return "\n".join([f"{module}.{kind.__qualname__}", *dict.fromkeys(places)])


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _place(frame: FrameType) -> str:
    function = frame.f_code.co_qualname
    for inlined in _INLINED:
        if function.endswith(inlined):
            return ""
    module, file = _module_of(frame), frame.f_code.co_filename
    if module in _MAIN:
        # `python score.py`, `python -m jobs.score`; what is typed into a notebook has a file of no lasting name.
        typed = file.startswith("<") or "ipykernel" in file
        module = "__main__" if typed else Path(file).stem
    return f"{_MANGLED.sub('', module)}:{function}"


@lru_cache(4096)
def _is_users(file: str, module: str) -> bool:
    """Whether code is the user's: not Python's, not installed, not Airflow's and not ours."""
    if module.partition(".")[0] in {"airflow", "batch_observability"} or file.startswith("<frozen "):
        return False
    parts = Path(file).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return False
    return not file.startswith(_library_folders())


@lru_cache(1)
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return tuple({folder + os.sep for path in folders for folder in (path, os.path.realpath(path))})
