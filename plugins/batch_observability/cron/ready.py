"""
What is asked of `batchobs run`, as it was understood when the same was asked before.

To read options, settings and a catalog takes three times as long as Python takes to start, and every job waits for it.
So what they came to is kept in `<state>/ready/`; it holds as long as options, variables, and the files that it came
from are what they were. Nothing that takes long to load is imported here.
"""

from __future__ import annotations

import os
import sys
import zlib

from batch_observability._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FOLDER = "ready"
# Another number for another form.
_FORM = 1
_SEPARATOR = "--"
# What settings and models are made of; the variables of a run that this process is in are not.
_SETTINGS = ("BATCHOBS_", "AIRFLOW")
_ALSO = ("HOME", "XDG_STATE_HOME", "DD_ENV", "OTEL_RESOURCE_ATTRIBUTES", "PYTHONPATH")
_OF_RUNS = ("BATCHOBS_RUN", "BATCHOBS_CHANNEL")
_AIRFLOW_HOME = "~/airflow"
_MAX_BYTES = 1 << 20


class Ready:
    """
    A job that is ready to be started.

    Args:
        fields: all that is known of it, as text.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = dict(fields)
        self.name = fields["name"]
        self.state = fields["state"]
        self.timeout_s = float(fields["timeout"]) if fields["timeout"] else None
        self.grace_s = float(fields["grace"])
        self.retries = int(fields["retries"])
        self.env_file = fields["env_file"]
        self.instrument = bool(fields["instrument"])
        self.overlap = fields["overlap"]
        self.capture_bytes = int(fields["capture_bytes"])

    def __getitem__(self, name: str) -> str:
        return self.fields[name]


def ready(arguments: Sequence[str]) -> tuple[Ready, list[str]] | None:
    """Return the job that the arguments of `run` ask for, and its command; None if it is not known yet."""
    key = key_of(arguments, state_folder())
    fields = _read(path_of(key))
    if fields is None or fields.pop("key", "") != _check(key) or not _is_unchanged(fields.pop("files", "")):
        return None
    words = list(arguments[int(fields.pop("options")) :])
    return (Ready(fields), words) if words else None


def keep(job: Ready, arguments: Sequence[str], options: int, files: Iterable[str]) -> None:
    """
    Keep a job for the next time that the same is asked for.

    Args:
        job: what was asked for.
        arguments: of `run`.
        options: how many of them come before the command.
        files: that it was read from, or would be if they were there.

    Raises:
        OSError: if it cannot be written.
    """
    key = key_of(arguments, state_folder())
    stamps = "\2".join(f"{file}\1{_stamp(file)}" for file in files)
    fields = {**job.fields, "key": _check(key), "files": stamps, "options": str(options)}
    text = "\0".join(part for pair in fields.items() for part in pair)
    path = path_of(key)
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)  # noqa: PTH103, PTH120  (pathlib takes long to load)
    partial = f"{path}.{os.getpid()}.part"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(descriptor)
    os.rename(partial, path)  # noqa: PTH104


def key_of(arguments: Sequence[str], state: str) -> tuple[str, ...]:
    """Return all that decides what is asked for."""
    asked = list(arguments)
    if _SEPARATOR in asked:
        options = asked[: asked.index(_SEPARATOR) + 1]
        if any(option.partition("=")[0] == "--model" for option in options):
            # What is run does not matter to it: it has a name.
            asked = options
    names = sorted(name for name in os.environ if name.startswith(_SETTINGS) and name not in _OF_RUNS)
    variables = [f"{name}={os.environ.get(name)}" for name in (*names, *_ALSO)]
    return (str(_FORM), __version__, sys.executable, __file__, state, *variables, "", *asked)


def path_of(key: Sequence[str]) -> str:
    """Return where the job of a key is kept."""
    number = zlib.crc32("\0".join(key).encode("utf-8", "surrogateescape"))
    return f"{state_folder()}/{FOLDER}/{number:08x}"


def is_setting(name: str) -> bool:
    """Whether a variable may change what is asked for."""
    return name.startswith(_SETTINGS) or name in _ALSO


def state_folder() -> str:
    """Return the state folder, as settings have it that are variables."""
    environ = os.environ
    if given := environ.get("BATCHOBS_STATE_DIR", "").strip():
        folder = os.path.expanduser(given)  # noqa: PTH111
    elif environ.get("AIRFLOW_HOME") or os.path.isdir(os.path.expanduser(_AIRFLOW_HOME)):  # noqa: PTH111, PTH112
        home = os.path.expanduser(environ.get("AIRFLOW_HOME") or _AIRFLOW_HOME)  # noqa: PTH111
        folder = f"{home.rstrip('/')}/batch_observability"
    else:
        base = os.path.expanduser(environ.get("XDG_STATE_HOME") or "~/.local/state")  # noqa: PTH111
        folder = f"{base.rstrip('/')}/batch_observability"
    # A user without a home, as in some containers, has none.
    return homeless_folder() if folder.startswith("~") else folder


def homeless_folder() -> str:
    """Return the state folder of a user who has no home."""
    return f"/tmp/batchobs-{os.geteuid()}/state"  # noqa: S108  (private folders are made in it)


def _check(key: Sequence[str]) -> str:
    """Return a number that tells keys apart whose files have one name."""
    text = "\0".join(key)
    return f"{len(text)}.{zlib.crc32(text[::-1].encode('utf-8', 'surrogateescape'), 1):08x}"


def _read(path: str) -> dict[str, str] | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # In a folder that others may have made first, it may be theirs.
        if os.fstat(descriptor).st_uid != os.geteuid():
            return None
        parts = os.read(descriptor, _MAX_BYTES).decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return dict(zip(parts[::2], parts[1::2], strict=False))


def _is_unchanged(stamps: str) -> bool:
    pairs = [stamp.partition("\1") for stamp in stamps.split("\2") if stamp]
    return all(_stamp(file) == stamp for file, _, stamp in pairs)


def _stamp(file: str) -> str:
    try:
        status = os.stat(file)  # noqa: PTH116
    except OSError:
        return ""
    return f"{status.st_mtime_ns}.{status.st_size}.{status.st_ino}"
