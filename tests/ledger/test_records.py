"""Changes of the ledger, written as JSON and read back."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_observability.ledger.records import (
    Declared,
    Extended,
    Finished,
    Margin,
    Measurement,
    Paused,
    Promised,
    Recovered,
    Run,
    Stage,
    Started,
    Verdict,
    decode,
    encode,
)
from tests.ledger.runs import finished, promised, run, started, verdict

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
PLAIN = {
    "str": st.text(),
    "bool": st.booleans(),
    "int": st.integers(),
    "float | None": st.none() | st.floats(allow_nan=False),
    "int | None": st.none() | st.integers(),
    "float": st.floats(allow_nan=False),
    "Model": st.dictionaries(st.text(), JSON, max_size=3),
    "dict[str, Any]": st.dictionaries(st.text(), JSON, max_size=3),
}


def records(kind, **nested):
    return st.builds(kind, **{f.name: nested[f.name] if f.name in nested else PLAIN[f.type] for f in fields(kind)})


RUNS = records(Run)
CHANGES = st.one_of(
    records(Started, run=RUNS),
    records(Paused, run=RUNS),
    records(Verdict),
    records(
        Finished,
        run=RUNS,
        stages=st.lists(records(Stage), max_size=2).map(tuple),
        measurements=st.lists(records(Measurement), max_size=2).map(tuple),
        margins=st.lists(records(Margin), max_size=2).map(tuple),
    ),
    records(Promised),
    records(Recovered),
    records(Extended, run=RUNS),
    records(Declared),
)


@given(CHANGES)
def test_a_change_is_read_as_it_was_written(change):
    assert decode(json.loads(json.dumps(encode(change)))) == change


@given(JSON)
def test_any_json_is_a_change_or_told_in_one_line(values):
    with pytest.raises(ValueError, match=r"kind is [^\n]+$"):
        decode(values)


@given(CHANGES, JSON, st.data())
def test_a_change_with_any_field_is_a_change_or_told_in_one_line(change, value, data):
    values = encode(change)
    values[data.draw(st.sampled_from(sorted(values)))] = value
    said = ""
    try:
        decode(values)
    except ValueError as error:
        said = str(error)
    assert "\n" not in said


def test_what_has_a_default_may_be_missing():
    """An older version, which wrote the spool, did not know it."""
    wanted = {f.name for f in fields(Run) if f.default is MISSING}
    values = {name: value for name, value in run().to_json().items() if name in wanted}
    assert Run.from_json(values).map_index == -1


def test_what_was_told_before_there_were_promises_is_read():
    values = encode(finished())
    for name in ("kept", "extended_s", "margins"):
        del values[name]
    del values["run"]["clear_number"]
    assert decode(values) == replace(decode(encode(finished(of=decode(values).run))), kept=0)


def test_what_is_not_known_is_passed_over():
    """A newer version, which wrote the spool, knew more."""
    values = encode(finished())
    values["run"]["later"] = values["later"] = 1
    assert decode(values) == decode(encode(decode(values)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "no change of the ledger: its kind is None, not one of started, paused, verdict, finished, "),
        ({"kind": ["x" * 90]}, "no change of the ledger: its kind is ['xxx"),
        ({"kind": "started"}, "Started has no run"),
        ({"kind": "started", "run": 1}, "Run is int: not an object"),
        ({**encode(verdict()), "reason": 1}, "Verdict.reason is 1: not a text"),
        ({**encode(started()), "context": []}, "Started.context is []: not an object"),
        ({**encode(finished()), "end_ns": True}, "Finished.end_ns is True: not a whole number"),
        ({**encode(finished()), "end_ns": 1.5}, "Finished.end_ns is 1.5: not a whole number"),
        ({**encode(finished()), "cpu_s": "1"}, "Finished.cpu_s is '1': not a number"),
        ({**encode(finished()), "cpu_s": 10**400}, "Finished.cpu_s is 1000"),
        ({**encode(finished()), "stages": {}}, "Finished.stages is {}: not a list"),
        ({**encode(finished()), "stages": [{}]}, "Stage has no span_id"),
        ({**encode(promised()), "missed": 1}, "Promised.missed is 1: not true or false"),
    ],
)
def test_what_is_no_change_is_told_with_its_field(values, message):
    with pytest.raises(ValueError) as raised:
        decode(values)
    assert str(raised.value).startswith(message)
