"""Children of multiprocessing, real ones: they go on with the run of their parent and log as it does."""

from __future__ import annotations

import concurrent.futures
import copy
import json
import logging
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
from collections import Counter

import pytest

from batch_observability import BatchModel, config, schema
from batch_observability.channel import Channel, FrameReader
from batch_observability.logs import children
from batch_observability.logs.children import LogChannel
from batch_observability.run import Run, RunContext, set_current_run
from tests.logs import family

MODEL = BatchModel("churn-score", version="3", service="churn", owner="team-risk")
FRESH = ("spawn", "forkserver")
KINDS = ("ours", "structlog", "stdlib", "print", "warning", "thread")


class Parent:
    """A run that is open in this process, what its observer gets, and what its children log."""

    def __init__(self, path):
        model = {"name": MODEL.name, "version": MODEL.version, "service": MODEL.service}
        context = RunContext("run-1", "airflow", "dag.task", model, {}, trace_id=0xABC, span_id=0xDEF, env="test")
        ours, self._theirs = socket.socketpair()
        self.channel = Channel(ours)
        self.run = Run(context, self.channel)
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def carry(self, taken=frozenset()):
        set_current_run(self.run)
        levels = {"quiet": logging.ERROR}
        children.carry(LogChannel(self.descriptor, config.Settings(), logging.INFO, levels, taken))

    def close(self):
        children.carry_no_more()
        set_current_run(None)
        self.channel.close()
        self._theirs.close()
        os.close(self.descriptor)

    @property
    def lines(self):
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def frames(self, kind):
        self._theirs.setblocking(False)
        received = b""
        try:
            while data := self._theirs.recv(65536):
                received += data
        except BlockingIOError:
            pass
        return [frame for frame in FrameReader().feed(received) if frame["t"] == kind]


@pytest.fixture
def parent(tmp_path):
    parent = Parent(tmp_path / "log")
    yield parent
    parent.close()


def run_in(method, target, *arguments):
    process = multiprocessing.get_context(method).Process(target=target, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 0


@pytest.mark.parametrize("method", FRESH)
def test_a_child_logs_with_the_trace_in_the_stage_that_was_open(parent, method):
    parent.carry()
    with parent.run.stage("outer") as outer:
        run_in(method, family.log_in_every_way, "child")
    assert Counter(line["event"] for line in parent.lines) == {f"{kind} from child": 1 for kind in KINDS}
    stages = {frame["name"]: frame for frame in parent.frames("stage")}
    assert stages["stage of child"]["parent"] == outer.span_id
    for line in parent.lines:
        assert line[schema.LOG_TRACE_ID] == f"{0xABC:032x}"
        assert line[schema.LOG_RUN_ID] == "run-1"
        assert line[schema.LOG_STAGE] == "stage of child"
        assert line[schema.LOG_SPAN_ID] == str(stages["stage of child"]["id"])
    (stdlib,) = (line for line in parent.lines if line["event"].startswith("stdlib"))
    assert (stdlib["rows"], stdlib["logger"], stdlib["level"]) == (3, "mine", "warning")


@pytest.mark.parametrize("method", FRESH)
def test_a_child_tells_the_observer_of_its_rows(parent, method):
    parent.carry()
    run_in(method, family.log_in_every_way, "child")
    assert [frame["read"] for frame in parent.frames("rows")] == [5]


@pytest.mark.parametrize("method", FRESH)
def test_outside_of_its_own_stages_a_child_is_in_the_stage_of_its_parent(parent, method):
    parent.carry()
    with parent.run.stage("outer") as outer:
        run_in(method, family.say, "one")
    run_in(method, family.say, "two")
    lines = {line["event"]: line for line in parent.lines}
    assert lines["line of one"][schema.LOG_SPAN_ID] == str(outer.span_id)
    assert lines["line of two"][schema.LOG_SPAN_ID] == str(0xDEF)


@pytest.mark.parametrize("method", FRESH)
@pytest.mark.parametrize("second", [*FRESH, "fork"])
def test_grandchildren_log_with_the_trace(parent, method, second):
    parent.carry()
    with parent.run.stage("outer") as outer:
        run_in(method, family.have_a_child, second, "a family")
    assert {line["event"] for line in parent.lines} == {
        "line of a family, the parent",
        "line of a family, the child",
    }
    assert {line[schema.LOG_SPAN_ID] for line in parent.lines} == {str(outer.span_id)}


@pytest.mark.parametrize("method", FRESH)
def test_workers_of_a_pool_log_with_the_trace(parent, method):
    parent.carry()
    with multiprocessing.get_context(method).Pool(2) as pool:
        pool.map(family.say, range(20), chunksize=1)
        pool.close()
        pool.join()
    assert {line["event"] for line in parent.lines} == {f"line of {number}" for number in range(20)}
    assert {line[schema.LOG_RUN_ID] for line in parent.lines} == {"run-1"}


@pytest.mark.parametrize("method", FRESH)
def test_workers_of_a_process_pool_executor_log_with_the_trace(parent, method):
    parent.carry()
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(family.say, range(20)))
    assert {line["event"] for line in parent.lines} == {f"line of {number}" for number in range(20)}
    assert {line[schema.LOG_RUN_ID] for line in parent.lines} == {"run-1"}


def test_joblib_works_on(parent):
    joblib = pytest.importorskip("joblib")
    parent.carry()
    done = joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(family.say)(number) for number in range(8))
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)
    assert len(done) == 8
    assert {line["event"] for line in parent.lines} == {f"line of {number}" for number in range(8)}


def test_a_process_class_of_a_user_works_on(parent):
    parent.carry()
    process = family.Subclass()
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert [line["event"] for line in parent.lines] == ["line of a subclass"]


@pytest.mark.parametrize("method", FRESH)
def test_a_manager_works_on(parent, method):
    parent.carry()
    with multiprocessing.get_context(method).Manager() as manager:
        shared = manager.dict(a=1)
        assert dict(shared) == {"a": 1}


def test_a_field_with_a_name_that_is_taken_gets_another_one(parent):
    parent.carry(taken=frozenset({"rows"}))
    run_in("spawn", family.log_in_every_way, "child")
    (line,) = (line for line in parent.lines if line["event"].startswith("stdlib"))
    assert (line.get("rows"), line["field.rows"]) == (None, 3)


@pytest.mark.parametrize("method", FRESH)
def test_after_the_run_children_are_in_none(parent, method):
    parent.carry()
    late = multiprocessing.get_context(method).Process(target=family.log_in_every_way, args=("late",))
    children.carry_no_more()
    set_current_run(None)
    late.start()
    late.join(60)
    assert late.exitcode == 0
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(family.is_in_a_run).result() == ""
    assert parent.lines == []
    assert parent.frames("stage") == []


@pytest.mark.parametrize("method", FRESH)
def test_no_descriptor_is_left_open_or_passed_on(parent, method):
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        without, inherited = pool.submit(family.descriptors).result()
    parent.carry()
    run_in(method, family.say, "first")
    before, _ = family.descriptors()
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        with_run, inherited_with_run = pool.submit(family.descriptors).result()
    for _ in range(3):
        run_in(method, family.say, "again")
    # The socket and the log.
    assert with_run == without + 2
    assert len(inherited_with_run) == len(inherited)
    assert family.descriptors()[0] == before


@pytest.mark.parametrize("broken", ["a channel that is closed", "a log that is closed", "what cannot be pickled"])
def test_whatever_is_wrong_the_child_starts(parent, broken):
    parent.carry()
    if broken == "a channel that is closed":
        parent.channel.close()
    elif broken == "a log that is closed":
        other = os.open(os.devnull, os.O_WRONLY)
        children.carry(LogChannel(other, config.Settings(), logging.INFO, {}))
        os.close(other)
    else:
        children.carry(secrets=lambda: 1 / 0)
    run_in("spawn", family.say, "a child")


def test_a_child_that_does_not_find_this_package_starts(parent, tmp_path):
    (tmp_path / "alone.py").write_text("def nothing():\n    pass\n")
    done = script(
        tmp_path,
        "import alone",
        "children.carry()",
        "children._SOURCE = children._SOURCE.replace('batch_observability', 'no_such_package')",
        "run(alone.nothing)",
    )
    assert done.stderr == ""


def test_a_carrier_is_nothing_when_it_is_pickled_or_copied_otherwise(parent):
    parent.carry()
    carrier = multiprocessing.current_process()._config["batch_observability"]
    assert pickle.loads(pickle.dumps(carrier)) == {}
    assert copy.copy(carrier) == {}


@pytest.mark.parametrize("format", ["json", "console"])
def script(folder, imports, *statements):
    """Runs a program that is in a run and starts children."""
    (folder / "main.py").write_text(
        "import multiprocessing, sys\n"
        "from batch_observability.logs import children, configure_logging, get_logger\n"
        "from batch_observability.run import Run, RunContext, set_current_run\n"
        f"{imports}\n"
        "def run(target, *arguments):\n"
        "    process = multiprocessing.get_context('spawn').Process(target=target, args=arguments)\n"
        "    process.start()\n"
        "    process.join(60)\n"
        "    sys.exit(process.exitcode)\n"
        "if __name__ == '__main__':\n"
        "    model = dict(name='churn', version='1', service='s')\n"
        "    set_current_run(Run(RunContext('run-1', 'cron', 'job', model, {}, trace_id=0xABC, span_id=2)))\n"
        + "".join(f"    {statement}\n" for statement in statements)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["plugins", "."])}
    command = [sys.executable, str(folder / "main.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("then", ["pass", "children.carry_no_more()"])
def test_without_airflow_a_child_logs_as_its_parent_was_configured_to(tmp_path, form, then):
    done = script(
        tmp_path,
        "from tests.logs import family",
        f"configure_logging(format={form!r}, level='info')",
        then,
        "run(family.log_in_every_way, 'child')",
    )
    assert done.stdout == "print from child\n"
    for kind in set(KINDS) - {"print"}:
        assert f"{kind} from child" in done.stderr
    if form == "json":
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert {line[schema.LOG_RUN_ID] for line in lines} == {"run-1"}
    else:
        assert not done.stderr.startswith("{")


def test_a_child_logs_as_its_parent_also_if_what_it_imports_sets_up_logging(parent, tmp_path, monkeypatch):
    (tmp_path / "loud.py").write_text(
        "import logging\nlogging.basicConfig(force=True)\ndef say():\n    logging.getLogger('mine').warning('said')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    parent.carry()
    import loud

    run_in("spawn", loud.say)
    assert "said" in [line["event"] for line in parent.lines]


def test_the_secrets_of_the_parent_are_masked_in_what_a_child_logs_and_tells(parent):
    parent.carry()
    channel = children._carried.log_channel
    children.carry(channel, lambda: "hush-[0-9]+")
    with parent.run.stage("outer"):
        run_in("spawn", family.log_in_every_way, "hush-123")
    assert "hush-123" not in parent.path.read_text()
    assert [frame["name"] for frame in parent.frames("stage")] == ["outer", "stage of ***"]
