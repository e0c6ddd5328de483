"""Log lines that find their trace, with Airflow's own logging of a task process, and its supervisor that reads them."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import sys
import threading
import time
import uuid
import warnings

import pytest
import structlog
from airflow.sdk._shared.logging.structlog import PER_LOGGER_LEVELS
from airflow.sdk._shared.secrets_masker import _secrets_masker
from airflow.sdk.execution_time.supervisor import process_log_messages_from_subprocess
from airflow.sdk.log import configure_logging, logging_processors, reset_logging

from batch_observability import BatchModel, config
from batch_observability.airflow import compat, task_logs
from batch_observability.logs import bind, children, correlation, get_logger
from batch_observability.run import Run, RunContext, set_current_run

MODEL = BatchModel("churn-score", version="3", service="churn", owner="team-risk")
SETTINGS = config.Settings()
FORK = multiprocessing.get_context("fork")


def make_run(run_id="run-1"):
    model = {"name": MODEL.name, "version": MODEL.version, "service": MODEL.service}
    return Run(RunContext(run_id, "airflow", "dag.task", model, {}, trace_id=0xABC, span_id=0xDEF, env="test"))


def observe(run=None, settings=SETTINGS):
    # Those of pytest fail at what cannot be printed.
    root = logging.getLogger()
    root.handlers[:] = [each for each in root.handlers if hasattr(each.formatter, "foreign_pre_chain")]
    run = run or make_run()
    set_current_run(run)
    task_logs.observe_logs(run, settings)
    return run


class Logs:
    """What a task process has sent, and what its supervisor makes of that."""

    def __init__(self, path):
        self.path = path
        self.stream = path.open("wb", buffering=0)

    @property
    def sent(self):
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    @property
    def lines(self):
        """The lines of the task's log file."""
        file = io.BytesIO()
        processors = logging_processors(json_output=True)
        logger = structlog.wrap_logger(structlog.BytesLogger(file), processors=processors, logger_name="task").bind()
        reader = process_log_messages_from_subprocess((logger,))
        next(reader)
        for line in self.path.read_bytes().splitlines():
            reader.send(line)
        return [json.loads(line) for line in file.getvalue().splitlines()]

    def line(self, event):
        (found,) = (line for line in self.lines if line["event"] == event)
        return found


@pytest.fixture
def logs(monkeypatch, tmp_path):
    """Airflow's logging as in a task process; all is put back afterwards."""
    logs = Logs(tmp_path / "sent")
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, level, levels = root.handlers[:], root.level, dict(PER_LOGGER_LEVELS)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(correlation, "_followed", None)
    monkeypatch.setattr(task_logs, "_gates", [])
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, (tmp_path / name).open("w+"))
    reset_logging()
    configure_logging(json_output=True, output=logs.stream, sending_to_supervisor=True)
    monkeypatch.setattr(children, "_shared", False)
    yield logs
    task_logs.end_of_run()
    set_current_run(None)
    root.handlers[:] = handlers
    root.setLevel(level)
    PER_LOGGER_LEVELS.clear()
    PER_LOGGER_LEVELS.update(levels)
    reset_logging()
    structlog.configure(**before)


def in_thread(function, *arguments):
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join()


def in_fork(function, *arguments):
    process = FORK.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def warn(text):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(text, UserWarning, stacklevel=1)


WRITERS = {
    "structlog": lambda text: structlog.get_logger("mine").info(text),
    "our logger": lambda text: get_logger("mine").info(text),
    "stdlib": lambda text: logging.getLogger("mine").warning(text),
    "stdlib in a thread": lambda text: in_thread(logging.getLogger("mine").warning, text),
    "structlog in a thread": lambda text: in_thread(structlog.get_logger("mine").warning, text),
    "structlog in a forked child": lambda text: in_fork(structlog.get_logger("mine").warning, text),
    "stdlib in a forked child": lambda text: in_fork(logging.getLogger("mine").warning, text),
    "print": print,
    "print in a thread": lambda text: in_thread(print, text),
    "print in a forked child": lambda text: in_fork(print, text),
    "print without an end, in a forked child": lambda text: in_fork(sys.stdout.write, text),
    "print to stderr": lambda text: print(text, file=sys.stderr),
    "a warning": warn,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_line_carries_the_run_and_its_stage(logs, writer):
    write, run = WRITERS[writer], observe()
    write("before")
    with run.stage("load"):
        write("in load")
        with run.stage("parse") as parse:
            write("in parse")
    write("after")
    for event, stage in (("before", None), ("in load", "load"), ("in parse", "parse"), ("after", None)):
        line = logs.line(event)
        assert line["dd.trace_id"] == f"{0xABC:032x}"
        assert (line["dd.service"], line["dd.env"], line["dd.version"]) == ("churn", "test", "3")
        assert (line["batch_model.name"], line["batch_model.run_id"]) == ("churn-score", "run-1")
        assert line.get("batch_model.stage") == stage
    assert logs.line("before")["dd.span_id"] == str(0xDEF)
    assert logs.line("in parse")["dd.span_id"] == str(parse.span_id)


def test_a_logger_that_was_used_before_is_correlated_too(logs):
    log = structlog.get_logger("early").bind(who="me")
    log.info("early")
    observe()
    log.info("late")
    assert "dd.trace_id" not in logs.line("early")
    assert logs.line("late")["dd.trace_id"]
    assert logs.line("late")["who"] == "me"


def test_observing_twice_is_observing_once_with_the_later_run(logs):
    observe(make_run("run-1"))
    processors = structlog.get_config()["processors"]
    (handler,) = logging.getLogger().handlers
    before = (len(processors), len(handler.formatter.foreign_pre_chain), len(handler.filters), sys.stdout)
    observe(make_run("run-2"))
    assert (len(processors), len(handler.formatter.foreign_pre_chain), len(handler.filters), sys.stdout) == before
    print("once")
    assert logs.line("once")["batch_model.run_id"] == "run-2"


def test_lines_after_the_run_still_say_which_run_it_was(logs):
    observe()
    task_logs.end_of_run()
    set_current_run(None)
    structlog.get_logger("task").info("late")
    assert logs.line("late")["batch_model.run_id"] == "run-1"


# --- What Airflow does stays as it is ---------------------------------------------------------------------------


def test_airflows_own_fields_and_forms_stay(logs):
    def say():
        structlog.contextvars.bind_contextvars(ti_id="1")
        structlog.get_logger("mine").info("::group::a", own="mine")
        logging.getLogger("other").warning("said %s", "so")
        logging.getLogger("other").debug("too low")
        try:
            raise ValueError("bad")
        except ValueError:
            structlog.get_logger("mine").exception("failed")
            logging.getLogger("other").exception("failed too")
        structlog.contextvars.unbind_contextvars("ti_id")

    say()
    count = len(logs.lines)
    observe()
    say()
    before, after = logs.lines[:count], logs.lines[count:]
    assert len(after) == count
    for old, new in zip(before, after, strict=True):
        assert {name: value for name, value in new.items() if name in old and name != "timestamp"} == {
            name: value for name, value in old.items() if name != "timestamp"
        }


def test_lines_say_where_user_code_logged_or_printed(logs):
    observe()
    get_logger("mine").info("ours")
    structlog.get_logger("mine").info("structlog")
    print("printed")
    lines = [logs.line(event) for event in ("ours", "structlog", "printed")]
    assert [line["filename"] for line in lines] == ["test_task_logs.py"] * 3
    assert [line["lineno"] - lines[0]["lineno"] for line in lines] == [0, 1, 2]


def test_an_error_has_both_forms(logs):
    observe()
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError:
        structlog.get_logger("mine").exception("from structlog")
        logging.getLogger("mine").exception("from stdlib")
    for event in ("from structlog", "from stdlib"):
        line = logs.line(event)
        assert [each["exc_type"] for each in line["error_detail"]] == ["ValueError", "KeyError"]
        assert (line["error.kind"], line["error.message"]) == ("ValueError", "outer")
        assert "test_an_error_has_both_forms" in line["error.stack"]
        assert line["error.causes"] == ["KeyError: 'inner'"]
        assert len(line["error.fingerprint"]) == 16


def test_a_console_for_people_is_left_alone(logs):
    structlog.configure(processors=[structlog.dev.ConsoleRenderer(colors=False)])
    stdout = sys.stdout
    observe()
    assert sys.stdout is stdout
    assert len(structlog.get_config()["processors"]) == 1


# --- What Airflow would lose, or end at ---------------------------------------------------------------------------


def test_extra_fields_of_stdlib_are_kept(logs):
    observe()
    logging.getLogger("mine").warning("with extra", extra={"rows": 5, "nested": {"a": [1]}})
    line = logs.line("with extra")
    assert (line["rows"], line["nested"], line["logger"]) == (5, {"a": [1]}, "mine")


NAMES = ["target", "self", "method_name", "positional_args", "timestamp", "level", "event", "logger", "dd.trace_id"]


@pytest.mark.parametrize("name", [*NAMES, "logger_name", "exception"])
def test_extra_fields_with_names_that_are_taken_get_others(logs, name):
    observe()
    logging.getLogger("mine").warning("with extra", extra={name: "users"})
    line = logs.line("with extra")
    assert line["level"] == "warning"
    assert line["logger"] == "mine"
    assert line["timestamp"].endswith("Z")
    assert name == "dd.trace_id" or line[f"field.{name}"] == "users"


@pytest.mark.parametrize("name", ["target", "msg", "timestamp", "logger_name", "exception", "level"])
def test_fields_of_structlog_with_names_that_are_taken_get_others(logs, name):
    observe()
    structlog.get_logger("mine").info("with field", **{name: "users"})
    line = logs.line("with field")
    assert line["level"] == "info"
    assert name in {"logger_name", "level"} or line[f"field.{name}"] == "users"


@pytest.mark.parametrize(("level", "shown"), [(5, "debug"), (25, "info"), (35, "warning"), (60, "critical")])
def test_lines_of_levels_that_somebody_invented_are_kept(logs, level, shown, monkeypatch):
    observe()
    logger = logging.getLogger("inventive")
    logger.setLevel(1)
    for handler in logging.getLogger().handlers:
        monkeypatch.setattr(handler, "level", 0)
    logger.log(level, "invented")
    assert logs.line("invented")["level"] == shown


class Unprintable:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


def test_what_cannot_be_printed_does_not_fail_its_line(logs):
    observe()
    itself = []
    itself.append(itself)
    structlog.get_logger("mine").info("one", bad=Unprintable(), itself=itself, number=10**5000, name="a\udcff")
    logging.getLogger("mine").warning("two", extra={"bad": Unprintable(), "deep": [["\udcff"]], "nan": float("nan")})
    logging.getLogger("mine").warning("three %s", Unprintable())
    logging.getLogger("mine").warning("four %s %s", *[1])
    assert logs.line("one")["bad"] == "<Unprintable: it cannot be printed>"
    assert logs.line("two")["deep"] == [["?"]]
    events = [line["event"] for line in logs.lines]
    assert events[2:] == ["three %s <Unprintable: it cannot be printed>", "four %s %s 1"]


def test_long_lines_are_cut_visibly(logs):
    observe()
    structlog.get_logger("mine").info("x" * 1_000_000, other="y" * 1_000_000)
    logging.getLogger("mine").warning("z" * 1_000_000)
    sizes = [len(line) for line in logs.path.read_bytes().splitlines()]
    assert all(size <= SETTINGS.log_max_bytes for size in sizes)
    assert min(sizes) > 10_000
    for line in logs.lines:
        assert "[cut: 1,000,000 characters]" in line["event"]
        assert line["dd.trace_id"]


def test_long_lines_of_several_processes_and_threads_do_not_mix(logs, tmp_path):
    observe()

    def say(letter):
        for _ in range(40):
            logging.getLogger("mine").warning(letter * 100_000)
            structlog.get_logger("mine").warning(letter * 100_000)

    children_of_it = [FORK.Process(target=say, args=(letter,)) for letter in "abc"]
    threads = [threading.Thread(target=say, args=(letter,)) for letter in "de"]
    for each in (*children_of_it, *threads):
        each.start()
    for each in (*children_of_it, *threads):
        each.join()
    lines = logs.lines
    assert len(lines) == 5 * 40 * 2
    assert all(len(set(line["event"].partition("…")[0])) == 1 for line in lines)


# --- Masking, floods, shipping ------------------------------------------------------------------------------------


def test_secrets_are_masked_before_they_leave_the_process(logs, monkeypatch):
    known = uuid.uuid4().hex
    masker = _secrets_masker()
    monkeypatch.setattr(masker, "patterns", set())
    monkeypatch.setattr(masker, "replacer", None)
    masker.add_mask(known)
    assert known in compat.known_secrets()
    observe(settings=config.Settings(log_redact=("ACC-\\d+",)))
    structlog.get_logger("mine").info(f"known {known}", where={"deep": [known]})
    logging.getLogger("mine").warning("of %s", known, extra={"password": "hunter2", "note": "ACC-123"})
    print("url postgres://me:hunter2@host/db")
    try:
        raise ValueError(f"secret {known}")
    except ValueError:
        logging.getLogger("mine").exception("failed")
    sent = logs.path.read_text()
    assert known not in sent
    assert "hunter2" not in sent
    assert "ACC-123" not in sent
    assert len(logs.lines) == 4


def test_a_flood_is_collapsed_and_told(logs):
    observe(settings=config.Settings(log_burst=10))
    for _ in range(50):
        structlog.get_logger("mine").info("again", same=1)
        logging.getLogger("mine").warning("again too")
        logging.getLogger("mine").error("an error")
    task_logs.end_of_run()
    lines = logs.lines
    for event in ("again", "again too"):
        found = [line for line in lines if line["event"] == event]
        assert len(found) == 12
        assert found[10]["batch_model.log.collapsed"] is True
        assert found[11]["batch_model.log.repeated"] == 39
        assert found[11]["dd.trace_id"]
    assert sum(line["event"] == "an error" for line in lines) == 50


def test_lines_are_handed_to_the_sidecar_if_that_is_wanted(logs, monkeypatch):
    shipped = []
    monkeypatch.setattr(Run, "active", True)
    monkeypatch.setattr(Run, "tell_log", lambda _run, *line: shipped.append(line))
    observe(settings=config.Settings(ship_logs=True))
    structlog.get_logger("mine").info("one", rows=3)
    logging.getLogger("mine").warning("two", extra={"rows": 4})
    print("three")
    assert [(line[1], line[2], line[3]) for line in shipped] == [
        ("info", "mine", "one"),
        ("warning", "mine", "two"),
        ("info", "task.stdout", "three"),
    ]
    assert [line[6].get("rows") for line in shipped] == [3, 4, None]


def test_bound_fields_are_in_every_line(logs):
    observe()
    with bind(batch=3):
        get_logger("mine").info("ours")
        logging.getLogger("mine").warning("stdlib")
    get_logger("mine").info("after")
    assert [line.get("batch") for line in logs.lines] == [3, 3, None]


# --- Printed lines ------------------------------------------------------------------------------------------------


def test_printed_lines_are_whole_lines_at_their_level(logs):
    observe()
    sys.stdout.write("a")
    sys.stdout.write("b\n\n  \nsecond\nthi")
    print("rd")
    print("trouble", file=sys.stderr)
    assert [(line["event"], line["level"], line["logger"]) for line in logs.lines] == [
        ("ab", "info", "task.stdout"),
        ("second", "info", "task.stdout"),
        ("third", "info", "task.stdout"),
        ("trouble", "error", "task.stderr"),
    ]


def test_the_lines_of_a_private_key_that_is_printed_are_masked(logs):
    observe()
    body = "\n".join(uuid.uuid4().hex for _ in range(5))
    kind = "PRIVATE KEY"
    print(f"before\n-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\nafter")
    assert [line["event"] for line in logs.lines] == ["before", *["***"] * 7, "after"]


def test_what_stands_in_for_stdout_is_a_stream(logs, tmp_path, monkeypatch):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        observe()
        assert sys.stdout.writable()
        assert not sys.stdout.isatty()
        assert sys.stdout.fileno() == file.fileno()
        assert sys.stdout.encoding == "utf-8"
        sys.stdout.buffer.write(b"bytes\n")
        sys.stdout.flush()
        assert sys.stdout.write("text\n") == 5
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")
        monkeypatch.undo()
    assert (tmp_path / "out").read_bytes() == b"bytes\n"


def test_a_last_line_without_a_newline_is_not_lost(logs):
    observe()
    print("100 %", end="", flush=True)
    assert logs.lines == []
    sys.stdout.finish()
    assert [line["event"] for line in logs.lines] == ["100 %"]


def test_what_stands_in_for_stdout_can_all_that_a_text_stream_can(logs, tmp_path, monkeypatch):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdout", file)
        observe()
        stand_in = sys.stdout
        monkeypatch.undo()
        stand_in.reconfigure(line_buffering=True)
        for name in ("name", "mode", "errors", "newlines", "line_buffering"):
            assert getattr(stand_in, name) == getattr(file, name)


def test_a_long_line_in_small_pieces_takes_time_that_grows_with_its_length_only(logs):
    observe()

    def seconds(writes):
        began = time.process_time()
        for _ in range(writes):
            sys.stdout.write("." * 20)
        sys.stdout.write("\n")
        return time.process_time() - began

    short = min(seconds(4000) for _ in range(3))
    # 4 is linear, 16 quadratic.
    assert seconds(16000) / short < 9


def test_lines_that_several_threads_print_are_whole(logs):
    observe()

    def write(name):
        for count in range(500):
            print(name, count)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = [line["event"] for line in logs.lines]
    assert sorted(events) == sorted(f"{name} {count}" for name in "abcd" for count in range(500))
    for name in "abcd":
        assert [event for event in events if event.startswith(name)] == [f"{name} {count}" for count in range(500)]


def test_a_handler_that_prints_does_not_print_for_ever(logs):
    class Printing(logging.Handler):
        def emit(self, record):
            print("handled", record.getMessage())

    logger = logging.getLogger("printing")
    logger.addHandler(Printing())
    observe()
    logger.warning("once")
    assert sorted(line["event"] for line in logs.lines) == ["handled once", "once"]


def test_a_child_that_is_forked_while_a_thread_logs_can_log(logs):
    observe()
    stop = threading.Event()

    def chatter():
        # What measures coverage has a lock that a forked child would wait for, were it held by this thread.
        sys.settrace(None)
        while not stop.wait(0):
            structlog.get_logger("chatter").info("chatter")

    thread = threading.Thread(target=chatter)
    thread.start()
    try:
        for _ in range(30):
            in_fork(structlog.get_logger("mine").warning, "from a child")
    finally:
        stop.set()
        thread.join()
    assert sum(line["event"] == "from a child" for line in logs.lines) == 30


@pytest.mark.parametrize("logger", [structlog.get_logger, logging.getLogger])
def test_a_child_that_is_forked_while_a_thread_takes_long_to_write_can_log(logs, monkeypatch, logger):
    monkeypatch.setattr(task_logs, "_LOCKED_AT_MOST_S", 0.05)
    observe()
    writes, wrote = threading.Event(), threading.Event()

    def write_long():
        with task_logs._write_lock(logs.stream):
            writes.set()
            wrote.wait()

    thread = threading.Thread(target=write_long)
    thread.start()
    try:
        writes.wait()
        in_fork(logger("mine").warning, "from a child")
    finally:
        wrote.set()
        thread.join()
    logger("mine").warning("from its parent")
    assert [line["event"] for line in logs.lines] == ["from a child", "from its parent"]


def test_after_the_run_children_carry_nothing(logs):
    observe()
    assert "batch_observability" in multiprocessing.current_process()._config
    task_logs.end_of_run()
    assert "batch_observability" not in multiprocessing.current_process()._config
