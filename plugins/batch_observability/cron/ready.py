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
from batch_observability.private import private_folder, private_in_tmp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FOLDER = "ready"
# Another number for another form.
_FORM = 1
_SEPARATOR, _MODEL = "--", "--model"
# What settings and models are made of; the variables of a run that this process is in are not.
_SETTINGS = ("BATCHOBS_", "AIRFLOW")
_ALSO = ("HOME", "XDG_STATE_HOME", "DD_ENV", "OTEL_RESOURCE_ATTRIBUTES", "PYTHONPATH")
_OF_RUNS = ("BATCHOBS_RUN", "BATCHOBS_CHANNEL")
_AIRFLOW_HOME = "~/airflow"
_MAX_BYTES = 1 << 20
# A file that was written in part, as by a host that lost its power, is no job.
_SUM = b"%08x\0"


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
    try:
        if fields.pop("key") != _check(key) or not _is_unchanged(fields.pop("files")):
            return None
        words = list(arguments[int(fields.pop("options")) :])
        return (Ready(fields), words) if words else None
    except (KeyError, ValueError):
        # There is none, or a version of ours that is being worked on has written it otherwise.
        return None


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
    private_folder(os.path.dirname(path))  # noqa: PTH120  (pathlib takes long to load)
    partial = f"{path}.{os.getpid()}.part"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    data = text.encode("utf-8", "surrogateescape")
    try:
        os.write(descriptor, _SUM % zlib.crc32(data) + data)
    finally:
        os.close(descriptor)
    os.rename(partial, path)  # noqa: PTH104


def key_of(arguments: Sequence[str], state: str) -> tuple[str, ...]:
    """Return all that decides what is asked for."""
    asked = list(arguments)
    if _SEPARATOR in asked:
        options = asked[: asked.index(_SEPARATOR) + 1]
        if _is_named(options):
            # What is run does not matter to it.
            asked = options
    names = sorted(name for name in os.environ if name.startswith(_SETTINGS) and name not in _OF_RUNS)
    variables = [f"{name}={os.environ.get(name)}" for name in (*names, *_ALSO)]
    return (str(_FORM), __version__, sys.executable, __file__, state, *variables, "", *asked)


def _is_named(options: Sequence[str]) -> bool:
    """Whether options say what the model is called."""
    given = ""
    for number, option in enumerate(options):
        if option == _MODEL:
            given = options[number + 1]
        elif option.startswith(f"{_MODEL}="):
            given = option.removeprefix(f"{_MODEL}=")
    return given not in ("", _SEPARATOR)


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
    return homeless_folder() if folder.startswith("~") else os.path.abspath(folder)  # noqa: PTH100


def homeless_folder() -> str:
    """Return the state folder of a user who has no home; where that is not private, one that cannot be written."""
    try:
        return f"{private_in_tmp()}/state"
    except OSError:
        return f"{os.devnull}/state"


def _check(key: Sequence[str]) -> str:
    """Return a number that tells keys apart whose files have one name."""
    text = "\0".join(key)
    return f"{len(text)}.{zlib.crc32(text[::-1].encode('utf-8', 'surrogateescape'), 1):08x}"


def _read(path: str) -> dict[str, str]:
    """Return what was kept; nothing if that is not whole, or if anybody else could have written it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077 or status.st_nlink != 1:
            return {}
        given, _, data = os.read(descriptor, _MAX_BYTES).partition(b"\0")
    except OSError:
        return {}
    finally:
        os.close(descriptor)
    if given + b"\0" != _SUM % zlib.crc32(data):
        return {}
    parts = data.decode("utf-8", "surrogateescape").split("\0")
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
