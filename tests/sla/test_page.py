"""The page for users says what is so."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from batch_observability import SLA, BatchModel, ModelError, schema
from batch_observability.config import Settings
from batch_observability.objective import OBJECTIVES, TERMS
from batch_observability.schema import Outcome
from batch_observability.sla.judge import judge
from batch_observability.sla.promises import deadlines
from tests.sla.causes import MINUTE
from tests.sla.test_promises import ns

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "sla.md").read_text("utf-8")
PICTURE = (DOCS / "sla-timeline.svg").read_text("utf-8")


def test_it_has_every_objective_and_term():
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == {*OBJECTIVES, *TERMS}


def test_it_names_only_signals_and_settings_that_there_are():
    known = {*schema.METRICS, *schema.ATTRIBUTES, *schema.LOG_FIELDS}
    assert set(re.findall(r"`(batch_model\.[\w.<>]+)`", PAGE)) <= known
    settings = {f"BATCHOBS_{name.upper()}" for name in Settings().as_frame()}
    assert set(re.findall(r"BATCHOBS_[A-Z_]+", PAGE)) <= settings
    events = {value for name, value in vars(schema).items() if name.endswith("_EVENT")}
    assert set(re.findall(r"`(batch model [a-z ]+)`", PAGE)) <= events


def test_its_mistake_is_told_like_that():
    with pytest.raises(ModelError) as caught:
        BatchModel("churn", sla=SLA(finish_by="25:00"))
    assert str(caught.value) in PAGE


def test_the_picture_is_of_a_run_that_is_judged_like_that():
    promised = {
        "start_within": "15m",
        "finish_within": "1h10m",
        "finish_by": "06:30 Europe/London",
        "min_duration": "10m",
    }
    # In winter London is UTC.
    due, start, retry, end = (ns(f"2026-01-07 {clock}") for clock in ("05:00", "05:08", "05:35", "06:02"))
    sla = SLA(**promised)
    judged = judge(
        sla,
        deadlines(sla, due=due, start=start),
        outcome=Outcome.SUCCESS,
        first_start_ns=start,
        start_ns=retry,
        end_ns=end,
        rows=None,
        first_try=True,
    )
    assert all(one.kept for one in judged)
    drawn = [text for text in ET.fromstring(PICTURE).itertext() if text.strip()]
    for one in judged:
        at = drawn.index(one.objective)
        assert drawn[at + 1] == one.promise
        assert f"{one.margin_s * 10**9 / MINUTE:.0f}m left" in drawn[at + 1 : at + 4]
    assert {"05:00", "05:08", "05:35", "06:02"} <= set(drawn)
