"""What a live test starts is gone when it ends, and a failure says what was seen."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.live.agent import REPOSITORY
from tests.live.processes import LiveError, Processes, free_ports, wait_until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(300)"
# Leaves a child in a session of its own behind, as a task leaves its sidecar.
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True)
print("up", child.pid, flush=True)
time.sleep(300)
"""


def _python(processes: Processes, code: str, name: str = "server"):
    process = processes.start(name, [sys.executable, "-c", code])
    wait_until(lambda: "up" in process.tail(), f"{name} is up", 10, process.tail)
    return process


def test_nothing_survives_the_block():
    """Not a process that ignores SIGTERM, not one in another session whose parent is gone; and not the folder."""
    with Processes(grace=0.5) as processes:
        parent = _python(processes, PARENT)
        child = int(parent.tail().split()[1])
        stubborn = _python(processes, STUBBORN, "stubborn")
        assert {parent.pid, child, stubborn.pid} <= {process.pid for process in processes.survivors()}
    assert not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in (parent.pid, child, stubborn.pid)
    )
    assert not processes.folder.exists()


SERVING = f"""
import sys
from tests.live.processes import Processes
with Processes(grace=0.5) as processes:
    process = processes.start("server", [sys.executable, "-c", {STUBBORN!r}])
    print(processes.folder, process.pid, flush=True)
    process.wait(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_survives_a_signal(number):
    """Ctrl-C, a time limit of a build and a closed terminal end a test as tidily as its own end."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY
    ) as test:
        assert test.stdout
        folder, pid = test.stdout.readline().split()
        test.send_signal(number)
        assert test.wait(10) != 0
    assert not psutil.pid_exists(int(pid))
    assert not Path(folder.decode()).exists()


def test_it_stops_only_what_it_started():
    """A process of the same user with the same command line lives on, and so does the rest of the family."""
    with Processes(grace=0.5) as processes, subprocess.Popen([sys.executable, "-c", STUBBORN]) as other:
        try:
            first, second = _python(processes, STUBBORN, "first"), _python(processes, STUBBORN, "second")
            processes.stop(first)
            assert not first.alive()
            assert second.alive()
            processes.stop()
            assert not second.alive()
            assert other.poll() is None
        finally:
            other.kill()


def test_an_early_end_is_told_with_the_log():
    with Processes() as processes:
        process = processes.start("server", [sys.executable, "-c", "raise SystemExit('port taken')"])
        wait_until(lambda: not process.alive(), "it ends", 10)
        with pytest.raises(LiveError, match=r"(?s)server ended with exit code 1.*port taken"):
            processes.check()


def test_a_program_that_is_not_there_is_named():
    with Processes() as processes, pytest.raises(LiveError, match=r"server cannot be started: .*'/no/such/program'"):
        processes.start("server", ["/no/such/program"])


def test_a_server_sees_nothing_of_the_developers_settings(monkeypatch):
    monkeypatch.setenv("DD_API_KEY", "secret")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("MY_OWN", "kept")
    with Processes() as processes:
        environment = processes.environment({"DD_ENV": "test"})
    assert environment.keys() & {"DD_API_KEY", "AIRFLOW__CORE__EXECUTOR", "HTTP_PROXY"} == set()
    assert (environment["MY_OWN"], environment["DD_ENV"]) == ("kept", "test")


def test_waiting_in_vain_says_what_was_seen():
    with pytest.raises(LiveError, match=r"waited 0\.1 s until the run ends, in vain; seen: state queued"):
        wait_until(lambda: None, "the run ends", 0.1, lambda: "state queued", every=0.01)


def test_free_ports_differ():
    assert len(set(free_ports(20))) == 20
