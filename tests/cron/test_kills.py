"""Whoever is killed, and whenever: each job has one outcome, once, and it is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from batch_observability.cron import beside
from tests.cron.jobs import COMMAND, captured, finished, lines, start, state
from tests.cron.killing import Round, wait_for_all
from tests.live import wait_until
from tests.sidecar.ledger_rows import rows

SEED = int(os.environ.get("BATCHOBS_TEST_SEED", "6"))
ROUNDS = int(os.environ.get("BATCHOBS_TEST_ROUNDS", "14"))


def read_on() -> None:
    """Be the next reader: look as a crontab line does each minute."""
    subprocess.run([COMMAND[0], "check"], capture_output=True, timeout=120, check=False)


def processes(run: subprocess.Popen[bytes]) -> dict[str, psutil.Process]:
    """Return the children of `batchobs run`: the command, and the observer once it observes."""
    assert run.stdout
    assert run.stdout.readline() == b"ready\n"
    children = psutil.Process(run.pid).children()
    named = {"observer" if "__main__.py" in " ".join(child.cmdline()) else "command": child for child in children}
    wait_until(lambda: "observer" in named and _is_kept(), "the run is observed", 30)
    return named


def _is_kept() -> bool:
    """Whether the observer has the journal, which it does as soon as it can do anything."""
    for path in (state() / "runs").glob("*.json"):
        return "stages" in json.loads(path.read_text())["observation"]
    return False


def kill(process: psutil.Process) -> None:
    """Kill a process, and wait until it is gone: that takes the system a moment."""
    process.kill()
    wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it is gone", 30)


def reads_output(command: psutil.Process, observer: psutil.Process) -> bool:
    """Whether the observer has taken over the pipe that the command writes to."""
    pipe = Path(f"/proc/{command.pid}/fd/1").readlink()
    for path in Path(f"/proc/{observer.pid}/fd").iterdir():
        with suppress(OSError):
            if path.readlink() == pipe:
                return True
    return False


def outcomes() -> list[str]:
    return [row["outcome"] for row in rows(state())]


@pytest.mark.thorough
def test_whoever_is_killed_each_job_has_one_outcome_that_is_true(tmp_path):
    played = [Round.drawn(SEED, number) for number in range(ROUNDS)]
    for one in played:
        one.play(tmp_path)
    wait_for_all(tmp_path)
    read_on()
    told = Counter(row["job"] for row in rows(state()))
    found = {row["job"]: row["outcome"] for row in rows(state())}
    seen = {one.name: (one, found.get(one.name)) for one in played}
    untold = [one for one in played if one.name not in found and not one.may_be_untold(tmp_path)]
    assert not untold, untold
    assert set(told.values()) <= {1}, told
    wrong = [seen[one.name] for one in played if one.name in found and found[one.name] not in one.outcomes(tmp_path)]
    assert not wrong, wrong
    # What is sent is told once, too.
    records = lines(state() / "logs" / "batch_models.jsonl")
    sent = Counter(one["batch_model.name"] for one in records if one["event"] == "batch model run finished")
    assert set(sent.values()) <= {1}, sent
    assert not list((state() / "runs").iterdir())


@pytest.mark.parametrize(("code", "outcome"), [(0, "success"), (3, "failed")])
def test_a_command_goes_on_when_batchobs_is_killed_and_its_end_is_told(code, outcome):
    script = f"echo ready; read x; echo still there; exit {code}"
    with start("--model", "orphan", "--", "sh", "-c", script, stdin=subprocess.PIPE) as process:
        children = processes(process)
        process.kill()
        process.wait(30)
        wait_until(lambda: reads_output(**children), "the observer reads what it writes", 30)
        process.communicate(b"go\n", timeout=30)
    (told,) = finished()
    assert told["batch_model.outcome"] == outcome
    # It did not die of writing: what it wrote is captured.
    assert "still there" in [line["event"] for line in captured("orphan")]


def test_a_command_that_is_killed_after_batchobs_was_is_killed():
    with start("--", "sh", "-c", "echo ready; exec sleep 60") as process:
        children = processes(process)
        process.kill()
        process.wait(30)
        kill(children["command"])
    assert [one["batch_model.outcome"] for one in finished()] == ["killed"]


def test_a_killed_observer_does_not_keep_a_job_from_being_told():
    with start("--", "sh", "-c", "echo ready; read x; exit 3", stdin=subprocess.PIPE) as process:
        kill(processes(process)["observer"])
        process.communicate(b"go\n", timeout=30)
    (told,) = finished()
    assert (told["batch_model.outcome"], told["error.message"]) == ("failed", "exit code 3")
    wait_until(lambda: outcomes() == ["failed"], "the ledger has it", 30, outcomes)


def test_an_observer_whose_first_thread_has_ended_is_not_spoken_to():
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not beside._is_dying(child.pid)
        child.kill()
        # As long as nobody waits for it, it is there.
        wait_until(lambda: beside._is_dying(child.pid), "it is known to end", 10, every=0.01)
    assert not beside._is_dying(child.pid)


def test_the_next_reader_tells_how_a_job_ended_whose_observer_was_killed_too():
    with start("--", "sh", "-c", "echo ready; read x; echo last words >&2; exit 3", stdin=subprocess.PIPE) as process:
        children = processes(process)
        # It reads nothing any more, and so cannot tell what it is told.
        children["observer"].send_signal(signal.SIGSTOP)
        process.communicate(b"go\n", timeout=30)
        kill(children["observer"])
    read_on()
    assert outcomes() == ["failed"]
    (told,) = finished()
    assert told["error.message"] == "exit code 3"
    assert told["error.stack"].splitlines()[-1] == "last words"


def test_the_next_run_closes_what_all_were_killed_over():
    with start("--", "sh", "-c", "echo ready; exec sleep 60") as process:
        children = processes(process)
        for one in (children["observer"], psutil.Process(process.pid), children["command"]):
            kill(one)
    with start("--model", "next", "--", "true") as process:
        process.communicate(timeout=30)
    wait_until(lambda: sorted(outcomes()) == ["lost", "success"], "both are told", 60, outcomes)
    (lost,) = [one for one in finished(2) if one["batch_model.outcome"] == "lost"]
    assert "nobody has seen how it ended" in lost["error.message"]
    assert "Airflow" not in str(lost)


def test_what_still_runs_is_not_closed():
    with start("--", "sh", "-c", "echo ready; read x; exit 3", stdin=subprocess.PIPE) as process:
        children = processes(process)
        kill(children["observer"])
        read_on()
        assert "failed" not in outcomes()
        assert "lost" not in outcomes()
        process.communicate(b"go\n", timeout=30)
    wait_until(lambda: outcomes() == ["failed"], "it is told once it has ended", 60, outcomes)


def test_a_state_folder_that_cannot_be_written_keeps_nothing_from_being_told(otlp, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("BATCHOBS_STATE_DIR", str(blocked / "state"))
    monkeypatch.setenv("BATCHOBS_LEDGER_URL", f"sqlite:///{tmp_path}/elsewhere.db")
    began = time.time()
    with start("--model", "unkept", "--", "sh", "-c", "exit 3") as process:
        assert process.wait(30) == 3

    def told() -> list[str]:
        return [record["body"] for record in otlp.otlp_logs()]

    wait_until(lambda: "batch model run finished" in told(), "it is at the agent", 30, told)
    assert time.time() - began < 60
