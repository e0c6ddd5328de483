"""What a line says: its names, its order, its size, and what is masked and collapsed in it."""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from batch_observability import schema
from batch_observability.config import Settings
from batch_observability.logs import get_logger
from batch_observability.logs.lines import Lines
from batch_observability.run import set_current_run

log = get_logger("render")
SECRET = "hunter2" + "hunter2"


def test_a_line_has_the_names_of_the_schema_in_their_order(written, run):
    with run.stage("load"):
        log.info("model %s loaded", "churn", rows=3)
    record = written.record()
    names = list(record)
    assert names[:4] == ["timestamp", "level", "logger", "event"]
    assert names[-1] == "rows"
    assert set(names) - {"rows"} == {*run.log_fields(), "timestamp", "level", "logger", "event", "batch_model.stage"}
    assert set(names) - {"rows"} <= set(schema.LOG_FIELDS)
    assert (record["level"], record["logger"], record["event"]) == ("info", "render", "model churn loaded")


def test_the_time_is_utc_with_microseconds(written):
    before = datetime.now(UTC)
    log.info("now")
    text = written.record()["timestamp"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", text)
    assert before - timedelta(seconds=1) < datetime.fromisoformat(text) < datetime.now(UTC) + timedelta(seconds=1)


@pytest.mark.parametrize(("method", "level"), [("warn", "warning"), ("fatal", "critical"), ("msg", "info")])
def test_levels_have_five_names(written, method, level):
    getattr(log, method)("x")
    assert written.record()["level"] == level


def test_a_level_may_be_a_number_or_a_name(written):
    log.log(35, "between")
    log.log("Error", "named")
    log.log(None, "odd")
    logging.getLogger("theirs").log(25, "between")
    assert [record["level"] for record in written.records()] == ["warning", "error", "info", "info"]


def test_a_field_with_a_name_of_ours_does_not_replace_ours(written, run):
    log.info("x", level="high", event="y", timestamp=3, **{"batch_model.name": "mine", "dd.trace_id": "1"})
    record = written.record()
    assert (record["level"], record["event"], record["dd.trace_id"]) == ("info", "x", run.trace_id)
    assert record["batch_model.name"] == "flight-delay"
    assert (record["field.level"], record["field.timestamp"], record["field.batch_model.name"]) == ("high", 3, "mine")


def test_fields_of_the_run_that_are_given_again_are_there_once(written, run):
    log.info("x", **run.log_fields())
    assert not [name for name in written.record() if name.startswith("field.")]


def test_an_error_is_told_with_causes_and_notes(written):
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError as error:
        error.add_note("while loading")
        log.exception("failed", batch=3)
        logging.getLogger("theirs").exception("failed")
    ours, theirs = written.records()
    assert (ours["level"], ours["event"], ours["batch"]) == ("error", "failed", 3)
    assert (ours["error.kind"], ours["error.message"]) == ("ValueError", "outer")
    assert ours["error.causes"] == ["KeyError: 'inner'"]
    assert ours["error.notes"] == ["while loading"]
    assert "while loading" in ours["error.stack"]
    assert len(ours["error.fingerprint"]) == 16
    assert ours["error.fingerprint"] == theirs["error.fingerprint"]


@pytest.mark.parametrize("given", [None, False, True, (None, None, None), "x", 7])
def test_no_error_is_no_field(written, given):
    log.info("x", exc_info=given)
    assert set(written.record()) == {"timestamp", "level", "logger", "event"}


def test_an_error_may_be_given(written):
    error = LookupError("lost")
    log.info("x", exc_info=error)
    log.info("x", exc_info=(type(error), error, None))
    assert {record["error.kind"] for record in written.records()} == {"LookupError"}


def test_where_a_call_is_may_be_asked_for(written):
    log.info("x", stack_info=True)
    logging.getLogger("theirs").info("x", stack_info=True)
    for record in written.records():
        assert "test_where_a_call_is_may_be_asked_for" in record["stack"].splitlines()[-2]


def test_extra_means_what_it_means_in_stdlib_logging(written):
    log.info("x", extra={"rows": 3}, table="t")
    logging.getLogger("theirs").info("x", extra={"rows": 3, "table": "t"})
    assert [(record["rows"], record["table"]) for record in written.records()] == [(3, "t")] * 2


def test_a_lone_surrogate_becomes_a_question_mark(written):
    log.info("file \udcff", name="ü😀\udcff")
    record = written.record()
    assert (record["event"], record["name"]) == ("file ?", "ü😀?")


# --- Size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_bytes", [1024, 5000, 262_144])
@pytest.mark.parametrize(
    "fields",
    [
        {"long": "x" * 1_000_000},
        {"wide": "😀" * 300_000},
        {f"f{number}": "y" * 100 for number in range(10_000)},
        {"list": list(range(100_000)), "nested": {"a": ["z" * 10_000] * 100}},
        {"k" * 500_000: 1},
        {"escaped": "\0\n" * 200_000},
    ],
    ids=["long", "wide", "many", "nested", "name", "escaped"],
)
def test_a_record_has_a_limit_and_says_what_is_cut(configured, run, max_bytes, fields):
    written = configured(log_max_bytes=max_bytes)
    log.info("big %s", "e" * 2000, **fields)
    text = written.stream.getvalue()
    assert len(text.encode()) <= max_bytes + 1
    record = written.record()
    assert record["dd.span_id"] == str(run.context.span_id)
    assert record["event"].startswith("big e")
    assert "[cut: " in text or max_bytes > 5000


def test_the_mark_says_how_long_a_text_was(configured):
    written = configured(log_max_bytes=5000)
    log.info("x", text="a" * 1_234_567)
    assert written.record()["text"].endswith("a… [cut: 1,234,567 characters]")


def test_a_text_that_is_cut_before_it_is_masked_says_how_long_it_was(configured):
    written = configured(log_max_bytes=5000)
    log.info("x", text="a" * 5_000_000)
    assert written.record()["text"].endswith("a… [cut: 5,000,000 characters]")


# --- Secrets -----------------------------------------------------------------------------------------------------


def test_secrets_are_masked_wherever_they_are(configured, run):
    written = configured(log_redact=(r"ACC-\d+",), known=lambda text: text.replace("swordfish", "***"))
    inner = json.dumps({"password": SECRET})
    log.info(
        "login password=%s", SECRET, nested={"api_key": [SECRET]}, json=json.dumps({"in": inner}), account="ACC-123"
    )
    log.info("url", url=f"postgresql://me:{SECRET}@db/x", header=f"Authorization: Bearer {SECRET}", fish="swordfish")
    try:
        raise ValueError(f"token={SECRET} ACC-55")
    except ValueError:
        log.exception("failed")
    text = written.stream.getvalue()
    assert SECRET not in text
    assert "swordfish" not in text
    assert not re.search(r"ACC-\d", text)
    for record in written.records():
        assert record["dd.span_id"] == str(run.context.span_id)


def test_what_cannot_be_masked_is_not_written(configured, run):
    def broken(text):
        raise RuntimeError("no")

    written = configured(known=broken)
    log.info("plain %s", SECRET, field=SECRET)
    assert SECRET not in written.text()


# --- Floods ------------------------------------------------------------------------------------------------------


def test_identical_lines_are_collapsed_visibly(configured):
    written = configured(log_burst=3)
    for _ in range(10):
        log.info("again", n=1)
        log.error("again", n=1)
    log.info("again", n=2)
    from batch_observability.logs.configure import finish

    finish()
    records = written.records()
    infos = [record for record in records if record["level"] == "info" and record["n"] == 1]
    assert len([record for record in records if record["level"] == "error"]) == 10
    assert [record.get("batch_model.log.collapsed") for record in infos] == [None, None, None, True, None]
    assert infos[-1]["batch_model.log.repeated"] == 6
    assert [record["n"] for record in records].count(2) == 1


# --- Shipping ----------------------------------------------------------------------------------------------------


def test_lines_are_told_to_the_observer_if_that_is_set(configured, wire):
    configured(ship_logs=True)
    with wire.run.stage("load") as load:
        log.info("part", rows=3, password=SECRET)
    (frame,) = wire.frames("log")
    assert (frame["level"], frame["logger"], frame["event"]) == ("info", "render", "part")
    assert (frame["trace"], frame["span"]) == (wire.run.trace_id, str(load.span_id))
    assert (frame["attributes"]["rows"], frame["attributes"]["password"]) == (3, "***")
    assert abs(frame["ts"] - time.time_ns()) < 60e9


def test_lines_are_not_told_if_it_is_not_set(written, wire):
    log.info("part")
    assert wire.frames("log") == []


def test_a_reader_that_fails_gets_the_line_as_it_is():
    lines: list[str] = []
    set_current_run(None)
    Lines(Settings(), lines.append, show=lambda record: 1 / 0).write("x", "info", {"event": "shown"})
    assert json.loads(lines[0])["event"] == "shown"
