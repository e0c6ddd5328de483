"""What a forked child does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def in_child(action: Callable[[], Any]) -> int:
    """Run something in a forked child; return the child's process id once it has ended well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return pid
