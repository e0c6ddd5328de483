"""Ways to die without a last word, each inside of a nested stage; one after the other, to time each alone."""

from __future__ import annotations

import ctypes
import os
import signal
from datetime import datetime

from airflow.sdk import DAG, chain, task

from batch_observability import BatchModel, current_run

MODEL = BatchModel("doomed-score", version="1", service="doomed", owner="team-risk", runbook="https://example.com/doom")


def read_address_zero():
    """A segmentation fault of native code; Airflow's own handler for SIGSEGV cannot return from it."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


DEATHS = {
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit_zero": lambda: os._exit(0),
    "exit_three": lambda: os._exit(3),
    "segfault": read_address_zero,
}


def die(way):
    with current_run().stage("load"):
        current_run().rows(read=5)
    with current_run().stage("score"), current_run().stage("predict"):
        DEATHS[way]()


with DAG("killed", start_date=datetime(2024, 1, 1), schedule=None):
    tasks = [task.batch_model(die, task_id=way, model=MODEL, trigger_rule="all_done")(way) for way in DEATHS]
    chain(*tasks)
