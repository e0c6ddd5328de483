"""
One run of a job at a time: a lock in the state folder that its holder's death sets free.
"""

from __future__ import annotations

import fcntl
import os

from batch_observability.private import private_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batch_observability.cron.ready import Ready

_WAIT = "wait"


class JobLock:
    """
    The lock of one job on this host. It is this process's alone: no command and no child holds it on.

    Args:
        path: of its file.

    Attributes:
        held: whether this process has it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self.held = False

    def take(self, *, wait: bool) -> None:
        """
        Take it; if another run has it and this one is not to wait, it is not held then.

        Raises:
            OSError: if there can be no lock.
        """
        private_folder(os.path.dirname(self._path))  # noqa: PTH120  (pathlib takes long to load)
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        self.held = True

    def holder(self) -> str:
        """Return the process id of who has it, "" if that is not known."""
        try:
            return os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor >= 0:
            # Also where a child has the descriptor too.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1
            self.held = False


def lock_of(job: Ready) -> JobLock:
    """
    Return the lock of a job that is not to run twice at a time, taken if that is possible.

    Raises:
        ConfigError: if there can be no lock.
    """
    lock = JobLock(job["lock"])
    try:
        lock.take(wait=job.overlap == _WAIT)
    except OSError as error:
        from batch_observability.config import ConfigError

        raise ConfigError(f"--overlap {job.overlap}: no lock in {job.state}: {error.strerror}") from None
    return lock
