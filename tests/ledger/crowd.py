"""
Many processes that write to one ledger at the same moment: `python -m tests.ledger.crowd URL PROCESSES JOB COUNT`.

They are forked by one that has imported all, wait for each other, and then each does its job; one line of JSON for
each is printed, with what it returned or the error.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 30


def crowd(url, processes, job, count=1):
    """Return what each of so many processes had to say of its job."""
    command = [sys.executable, "-m", "tests.ledger.crowd", url, str(processes), job, str(count)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def write(ledger, index, count):
    """Tell start and end of each run by itself, as sidecars do; return how many it closed."""
    from tests.ledger.runs import finished, run, started

    closed = 0
    for number in range(count):
        name = f"run-{index}-{number}"
        ledger.apply(started(name))
        closed += ledger.apply(finished(of=run(name)))
    return closed


def replay(ledger, index, count):
    """Tell the ends of many runs at once, as when a spool is replayed; return how many it closed."""
    from tests.ledger.runs import finished, run

    runs = [run(f"run-{index}-{number}", task_id=f"task-{number % 20}", map_index=number) for number in range(count)]
    return sum(ledger.apply_all([finished(of=of, token=f"token-{index}") for of in runs]))


def close(ledger, index, count):
    """Try to close the same runs as all others, each its own way round; return the ones it closed."""
    from tests.ledger.runs import finished, run

    names = [f"run-{(index + number) % count}" for number in range(count)]
    return [name for name in names if ledger.apply(finished(of=run(name), token=f"token-{index}"))]


def migrate(ledger, _index, _count):
    """Migrate."""
    return ledger.migrate()


def claim(ledger, index, count):
    """Claim the same causes as all others, each its own way round; return the ones to tell."""
    from tests.ledger.runs import promised

    told = []
    for number in range(count):
        key = f"key-{(index + number) % count}"
        for state in ("at_risk", "breached"):
            # Who comes first has it at risk, which whoever comes later cannot claim before it is broken.
            if ledger.apply(promised(key, state, token=f"token-{index}-{number}", time_ns=index)):
                told.append(f"{state} {key.removeprefix('key-')}")
    return told


def begin(ledger, index, count):
    """Claim the same episodes as all others, each for a cause of its own; return the ones to tell."""
    from tests.ledger.runs import promised

    told = []
    for number in range(count):
        episode, key = f"episode-{(index + number) % count}", f"key-{index}-{number}"
        values = {"objective": "freshness", "episode": episode, "token": f"token-{index}"}
        if index % 2:
            ledger.apply(promised(key, "at_risk", **values))
        if ledger.apply(promised(key, **values)):
            told.append(episode)
    return told


def recover(ledger, index, _count):
    """Say that all is well again; return whether to tell it."""
    from tests.ledger.runs import recovered

    return ledger.apply(recovered(before_ns=10**9, token=f"token-{index}"))


JOBS = {job.__name__: job for job in (write, replay, close, migrate, claim, begin, recover)}


def main(url, processes, job, count):
    """Fork, open the gate, and print what comes."""
    for module in ("alembic.command", "psycopg", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite"):
        # Here once, and not in each.
        importlib.import_module(module)
    from batch_observability.ledger.store import Ledger

    results, tell = os.pipe()
    wait, gate = os.pipe()
    children = []
    for index in range(int(processes)):
        child = os.fork()
        if child == 0:
            os.close(gate)
            os.read(wait, 1)
            try:
                answer = {"answer": JOBS[job](Ledger(url, TIMEOUT_S), index, int(count))}
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            # Shorter than PIPE_BUF, it is not mixed up with another's.
            os.write(tell, json.dumps(answer).encode() + b"\n")
            os._exit(0)
        children.append(child)
    os.close(tell)
    os.close(gate)
    with os.fdopen(results) as lines:
        print(lines.read(), end="")
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
