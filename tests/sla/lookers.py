"""
Processes that look for the same broken promises at the same moment: `python -m tests.sla.lookers STATE COUNT`.

Each says that it is there, waits until its stdin ends, looks, and prints what it told as one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def late(count):
    """Return so many runs that are due and have not begun, and that their tasks are known."""
    from batch_observability.sla.watch import Expected
    from tests.sla.causes import DAY, DUE, declared, model, place

    promised = model(start_within="10m")
    due = [Expected(model=promised, since_ns=DUE - DAY, **place(f"dag-{number}")) for number in range(count)]
    return due, [declared(one) for one in due]


def watcher(state, told_by, count):
    """Return who looks for them."""
    from batch_observability.sla.watch import Watcher
    from tests.sla.conftest import Host

    host = Host(Path(state))
    return Watcher(host.settings(), host.delivery(), told_by, "prod", lambda: late(count))


def start(state, count):
    """Start a process that is there when this returns."""
    command = [sys.executable, "-m", "tests.sla.lookers", str(state), str(count)]
    popen = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if popen.stdout.readline() != "there\n":
        popen.kill()
        popen.communicate()
        raise AssertionError("it did not come up")
    return popen


def main(state, count):
    """Look when told to."""
    from tests.sla.causes import DAY, DUE

    one = watcher(state, "check", int(count))
    # What is imported and opened by then takes none of the time in which they meet.
    one._delivery.ledger.open_promises()
    print("there", flush=True)
    sys.stdin.read()
    print(json.dumps(one.look(now_ns=DUE + DAY).told))


if __name__ == "__main__":
    main(*sys.argv[1:])
