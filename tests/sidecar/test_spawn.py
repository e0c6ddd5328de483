"""The sidecar as a process: nobody's child, in a session of its own, with nothing of the task's."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
from contextlib import suppress

import psutil
import pytest

from batch_observability.sidecar import spawn
from batch_observability.sidecar.spawn import detach, start_observer
from tests.live import wait_until
from tests.sidecar.frames import context, end, spooled, start


def descriptors(pid):
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208  (Path.iterdir() holds no less open)
        with suppress(FileNotFoundError):  # that of the listing itself
            found[name] = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
    return found


def test_it_is_nobodys_child_in_a_session_of_its_own_with_descriptors_of_its_own(observe, run_span, capsys):
    observed = observe("holds")
    sidecar = observed.sidecar()
    assert sidecar.ppid() != observed.pid
    assert os.getsid(sidecar.pid) == os.getpgid(sidecar.pid)
    assert os.getsid(sidecar.pid) not in (os.getsid(observed.pid), observed.pid)
    assert psutil.Process(observed.pid).children(recursive=True) == []
    assert sidecar.cwd() == "/"

    wait_until(lambda: observed.said().get("held"), "it holds", 10, every=0.02)
    # The selector's descriptor is the last to come.
    wait_until(lambda: "anon_inode:[eventpoll]" in descriptors(sidecar.pid).values(), "it watches", 10, every=0.02)
    links = descriptors(sidecar.pid)
    assert {links.pop(number) for number in ("0", "1", "2")} == {"/dev/null"}
    # Its end of the pair, the pidfd of the task, the selector, and the journal that it holds.
    assert len(links) == 4, links
    assert sum(link.startswith("socket:") for link in links.values()) == 1, links
    assert sum("pidfd" in link for link in links.values()) == 1, links
    assert sum(link.endswith(f"/runs/{observed.service}.json") for link in links.values()) == 1, links
    with capsys.disabled():
        print(f" [sidecar: {sidecar.memory_info().rss / 1e6:.1f} MB]", end="")
    observed.tell()
    run_span(observed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_survives_what_a_service_manager_sends_and_ends_by_itself(observe, run_span, number):
    observed = observe("holds")
    sidecar = observed.sidecar()
    sidecar.send_signal(number)
    observed.tell()
    assert observed.wait() == 0
    assert run_span(observed)["meta"]["batch_model.outcome"] == "success"
    assert observed.sidecars() == []


def test_user_code_that_waits_for_all_of_its_children_is_not_kept_waiting(observe):
    observed = observe("waits", BATCHOBS_EXPORT="spool")
    observed.sidecar()
    wait_until(lambda: observed.said().get("ready"), "it is ready", 10, every=0.02)
    wait_until(lambda: not psutil.Process(observed.pid).children(), "the shell is gone", 10, every=0.02)
    observed.tell()
    assert observed.wait() == 0
    said = observed.said()
    assert said["reaped"] == [said["own"]]
    assert said["wait_s"] < 1


def test_frames_never_go_into_a_descriptor_of_user_code(observe):
    observed = observe("opens sockets", BATCHOBS_EXPORT="spool")
    assert observed.wait() == 0
    assert observed.said()["got"] == ""


def test_in_a_thread_a_run_is_observed_where_no_process_can_be_started(state, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "posix_spawn", fail)
    settings = start(os.getpid(), state)["settings"]
    with caplog.at_level(logging.WARNING):
        observer = start_observer(context(), settings)
    channel = observer.channel
    assert not observer.separate
    assert [record.levelname for record in caplog.records if record.name == "batch_observability"] == ["WARNING"]
    channel.send(end(wait=True))
    assert channel.wait_acknowledged(20)
    channel.close()
    assert spooled(state, "traces")[0]["attributes"]["batch_model.outcome"] == "success"


@pytest.mark.parametrize("missing", ["shell", "python"])
def test_what_cannot_be_executed_is_an_os_error_and_leaves_no_descriptor_behind(monkeypatch, missing):
    if missing == "shell":
        monkeypatch.setattr(spawn, "_SHELL", "/nonexistent/sh")
    else:
        monkeypatch.setattr("sys.executable", "/nonexistent/python")
    before = descriptors(os.getpid())
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="nonexistent"):
        detach("sidecar", theirs, watch=os.getpid())
    assert descriptors(os.getpid()).keys() <= before.keys()


def test_a_sidecar_that_does_not_understand_the_task_says_so(state):
    """The package was upgraded below a scheduler that still runs the older one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        detach("sidecar", theirs)
        ours.send(b'{"t":"start","of":"another version"}\n')
        log_file = state / "logs" / "observer.log"
        wait_until(lambda: log_file.exists() and "a run is not told" in log_file.read_text("utf-8"), "it says so", 10)
