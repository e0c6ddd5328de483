"""Ids of traces and spans: read, derived and written."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_observability.ids import (
    TraceParent,
    derive_span_id,
    derive_trace_id,
    format_traceparent,
    hex_span_id,
    hex_trace_id,
    parse_traceparent,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"


@pytest.mark.parametrize("text", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-later"])
def test_a_traceparent_is_read(text):
    """Sampled or not, and of a later version of the standard, whose further fields are passed over."""
    assert parse_traceparent(text) == TraceParent(int(TRACE, 16), int(SPAN, 16))


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1))
def test_ids_are_read_as_they_were_written(trace_id, span_id):
    text = format_traceparent(trace_id, span_id)
    assert len(text) == 55
    assert text.endswith("-01")
    assert parse_traceparent(text) == TraceParent(trace_id, span_id)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        b"00",
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
    ],
)
def test_what_is_no_traceparent_is_none(text):
    assert parse_traceparent(text) is None


@pytest.mark.parametrize("text", [f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-later"])
def test_what_the_standard_forbids_is_none(text):
    """https://www.w3.org/TR/trace-context/#version: ff is invalid, and 00 has no further fields."""
    assert parse_traceparent(text) is None


@given(st.text())
def test_any_text_is_a_traceparent_or_none(text):
    assert parse_traceparent(text) is None


@given(st.lists(st.text() | st.integers(), min_size=1))
def test_a_derived_id_fits_and_repeats_itself(parts):
    assert 0 < derive_span_id(*parts) < 2**64
    assert 0 < derive_trace_id(*parts) < 2**128
    assert derive_span_id(*parts) == derive_span_id(*parts)


def test_a_derived_id_is_the_same_in_every_process():
    """Not hash(): the scheduler's helper must find the id that the task's sidecar gave."""
    code = "from batch_observability.ids import *; print(derive_span_id('a', 1), derive_trace_id('a', 1))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(derive_span_id("a", 1)), str(derive_trace_id("a", 1))]


@pytest.mark.parametrize(("one", "other"), [(("a", 1), ("a", 2)), (("ab", "c"), ("a", "bc")), (("a",), ("a", ""))])
def test_what_differs_has_another_id(one, other):
    assert derive_span_id(*one) != derive_span_id(*other)
    assert derive_trace_id(*one) != derive_trace_id(*other)


def test_ids_are_written_in_full_length():
    assert hex_trace_id(1) == f"{'0' * 31}1"
    assert hex_span_id(1) == f"{'0' * 15}1"
    assert hex_trace_id(2**128 - 1) == "f" * 32
