"""
Start of a process of ours: `python -I __main__.py sidecar|helper|judge <socket> [<pidfd>]`, or `job <descriptors>`.

Isolated, so that neither the environment nor the working directory of the task decides what is imported; the path to
the package comes from this file.
"""

import os
import signal
import socket
import sys
from contextlib import suppress
from itertools import pairwise


def main(role: str, descriptor: int, *others: int) -> None:
    """Observe the run, help the scheduler, or judge for the triggerer, at the other end of a socket; or watch a job."""
    # Descriptors of the observed process that are inherited by any child, as some C libraries make them.
    kept = sorted({0, 1, 2, descriptor, *others})
    for below, above in pairwise([*kept, os.sysconf("SC_OPEN_MAX")]):
        os.closerange(below + 1, above)
    os.chdir("/")
    with suppress(OSError, AttributeError):  # a container may forbid it; not on macOS
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            # It does not take the processor from what it observes when it wakes up (sched(7)).
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # A service manager that ends the task may signal us too; we end by ourselves when the task has.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if role == "job":
        from batch_observability.cron.beside import step_back

        step_back()
        from batch_observability.cron.witness import witness

        witness((descriptor, *others))
        os._exit(0)
    sock = socket.socket(fileno=descriptor)
    if role == "helper":
        from batch_observability.airflow.helper import help_scheduler

        help_scheduler(sock)
    elif role == "judge":
        from batch_observability.airflow.judge import judge_for_triggerer

        judge_for_triggerer(sock)
    else:
        from batch_observability.sidecar.loop import observe_process

        observe_process(sock, others[0] if others else None)
    # Exporters leave threads behind that would wait for their backend.
    os._exit(0)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))  # noqa: PTH100, PTH120  (pathlib costs 10 ms)
    main(sys.argv[1], *map(int, sys.argv[2:]))
