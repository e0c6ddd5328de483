"""The observed process seen from outside: memory and CPU of its tree, its death, and what it died of."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch_observability.sidecar.process import Death, ObservedProcess
from batch_observability.usage import birth, high_water_mark
from tests.live import wait_until

NOTHING = {"cpu_s": 0.0, "memory_peak": 0}
GONE = 2**22 + 1  # above the highest pid that Linux gives
HOLDS = "import sys; block = bytearray(b'x' * {size}); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def child():
    """Return a function that runs Python code in a child, and waits until that has said a line."""
    started = []

    def run(code: str) -> subprocess.Popen:
        popen = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(popen)
        return popen

    yield run
    for popen in started:
        popen.kill()
        popen.communicate()


@pytest.mark.parametrize(
    ("status", "death"),
    [
        (signal.SIGKILL, Death(signal="SIGKILL")),
        (signal.SIGSEGV | 0x80, Death(signal="SIGSEGV")),
        (63, Death(signal="signal 63")),
        (0, Death(exit_code=0)),
        (3 << 8, Death(exit_code=3)),
    ],
)
def test_a_wait_status_is_a_signal_or_an_exit_code(status, death):
    assert Death.from_wait_status(status) == death


@pytest.mark.parametrize(
    ("code", "death"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Death(signal="SIGKILL")),
        ("raise SystemExit(3)", Death(exit_code=3)),
        ("", Death(exit_code=0)),
    ],
)
def test_the_system_tells_what_a_reaped_process_died_of(child, code, death):
    popen = child(code)
    pidfd = os.pidfd_open(popen.pid)
    try:
        observed = ObservedProcess(popen.pid, NOTHING, pidfd)
        assert select.select([pidfd], [], [], 10)[0]
        popen.wait(10)
        found = observed.death()
    finally:
        os.close(pidfd)
    if found == Death():
        pytest.skip("this Linux does not tell: exit information comes with 6.15")
    assert found == death


def test_of_a_process_that_lives_or_has_no_pidfd_nothing_is_told(child):
    popen = child(HOLDS.format(size=1))
    pidfd = os.pidfd_open(popen.pid)
    try:
        assert ObservedProcess(popen.pid, NOTHING, pidfd).death() == Death()
    finally:
        os.close(pidfd)
    assert ObservedProcess(popen.pid, NOTHING).death() == Death()


def test_a_descriptor_that_is_no_pidfd_tells_nothing():
    with Path("/dev/null").open("rb") as file:
        assert ObservedProcess(1, NOTHING, file.fileno()).death() == Death()


def test_it_is_alive_until_it_is_a_zombie_or_gone(child):
    popen = child(HOLDS.format(size=1))
    observed = ObservedProcess(popen.pid, NOTHING)
    assert observed.alive
    popen.kill()
    wait_until(lambda: not observed.alive, "the zombie counts as dead", 10, every=0.01)
    assert popen.returncode is None
    popen.wait()
    assert not observed.alive
    assert not ObservedProcess(GONE, NOTHING).alive


def test_a_process_of_somebody_else_is_alive(monkeypatch):
    def not_permitted(pid, number):
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_permitted)
    assert ObservedProcess(os.getpid(), NOTHING).alive
    # Without /proc, as on macOS, the signal's answer is all there is.
    assert ObservedProcess(GONE, NOTHING).alive


def test_a_process_is_born_once_and_keeps_that_until_it_is_dead(child):
    # A name may hold anything.
    popen = child("open('/proc/self/comm', 'w').write(') Z 1 ('); " + HOLDS.format(size=1))
    born = birth(popen.pid)
    assert int(born) > 0
    popen.stdout.readline()
    assert ") Z 1 (" in Path(f"/proc/{popen.pid}/stat").read_text("utf-8")
    assert birth(popen.pid) == born
    assert int(birth(os.getpid())) <= int(born)
    popen.kill()
    wait_until(lambda: birth(popen.pid) == "", "a zombie has none", 10, every=0.01)
    popen.wait()
    assert birth(popen.pid) == birth(GONE) == ""


def test_memory_is_that_of_the_tree(child):
    popen = child(
        f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {HOLDS.format(size=60_000_000)!r}], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE); print(p.stdout.readline(), flush=True); sys.stdin.read(); "
        "p.communicate()"
    )
    popen.stdout.readline()
    observed = ObservedProcess(popen.pid, NOTHING)
    observed.sample()
    assert 60_000_000 < observed.memory_peak < 200_000_000
    popen.communicate()
    peak = observed.memory_peak
    observed.sample()
    assert observed.memory_peak == peak


def test_a_peak_between_two_looks_is_seen(child):
    popen = child("block = bytearray(b'x' * 60_000_000); del block; " + HOLDS.format(size=1))
    popen.stdout.readline()
    observed = ObservedProcess(popen.pid, NOTHING)
    observed.sample()
    assert observed.memory_peak > 60_000_000


def test_cpu_is_counted_from_the_start_of_the_run(child):
    popen = child("import time\nwhile time.process_time() < 0.3: pass\n" + HOLDS.format(size=1))
    popen.stdout.readline()
    whole, since = ObservedProcess(popen.pid, NOTHING), ObservedProcess(popen.pid, {"cpu_s": 0.25, "memory_peak": 7})
    whole.sample()
    since.sample()
    assert 0.28 <= whole.cpu_s < 3
    assert since.cpu_s == pytest.approx(whole.cpu_s - 0.25, abs=0.02)


def test_what_the_process_says_of_itself_only_grows():
    observed = ObservedProcess(GONE, {"cpu_s": 1.0, "memory_peak": 100})
    observed.add_usage(3.0, 50)
    assert (observed.cpu_s, observed.memory_peak) == (2.0, 100)
    observed.add_usage(2.0, 500.0)
    assert (observed.cpu_s, observed.memory_peak) == (2.0, 500)
    observed.sample()
    assert (observed.cpu_s, observed.memory_peak) == (2.0, 500)


def test_without_a_line_of_the_peak_there_is_none():
    assert high_water_mark(GONE) == 0
    # A kernel thread has no memory of its own.
    assert high_water_mark(2) == 0
