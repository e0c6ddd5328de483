"""
How fast this machine is just now, for budgets that are given in milliseconds.

A processor that others use as well has its caches full of theirs and shares its units with them: the same code then
takes several times as much of it. So the budgets, which were set on a machine with nothing else to do, are scaled by
what a piece of work takes that is like a hook's: code that is read, unmarshalled and run for the first time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec

_MODULES = ("argparse", "pickle", "tarfile", "zipfile")
# Milliseconds of the processor that it takes on a machine of two cores with nothing else to do.
UNHURRIED_MS = 25.0


def slowness(clock: Callable[[], float] = time.thread_time) -> float:
    """Return how many times as long as there the work takes now; 1 if it is as fast, or faster."""
    began = clock()
    for name in _MODULES:
        spec = find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(module_from_spec(spec))
    return max(1.0, (clock() - began) * 1e3 / UNHURRIED_MS)
