"""What children of multiprocessing do in tests; a module, because those that are started afresh import it."""

from __future__ import annotations

import concurrent.futures
import logging
import multiprocessing
import os
import warnings
from pathlib import Path

import structlog

from batch_observability import current_run
from batch_observability.logs import get_logger


def log_in_every_way(name):
    """One line of each kind, in a stage of its own; and rows."""
    with current_run().stage(f"stage of {name}"):
        get_logger("mine").info(f"ours from {name}")
        structlog.get_logger("mine").info(f"structlog from {name}")
        logging.getLogger("mine").warning("stdlib from %s", name, extra={"rows": 3})
        print(f"print from {name}")
        warnings.warn(f"warning from {name}", UserWarning, stacklevel=1)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(logging.getLogger("mine").warning, f"thread from {name}").result()
    current_run().rows(read=5)
    return current_run().run_id


def say(name):
    """One line."""
    logging.getLogger("mine").warning("line of %s", name)
    return os.getpid()


def have_a_child(method, name):
    """Log, and let a child of this child log."""
    say(f"{name}, the parent")
    child = multiprocessing.get_context(method).Process(target=say, args=(f"{name}, the child",))
    child.start()
    child.join()


def descriptors(_=None):
    """Descriptors that this process has open, and those of them that a program that it starts would have."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    there = [number for number in numbers if Path(f"/proc/self/fd/{number}").exists()]
    return len(there), [number for number in there if number > 2 and os.get_inheritable(number)]


def is_in_a_run(_=None):
    """Whether this process is in a run."""
    return current_run().run_id


class Subclass(multiprocessing.get_context("spawn").Process):
    """A process class of a user."""

    def run(self):
        say("a subclass")
