"""What has become of the promises of a run that has ended, for every objective and every way to end."""

from __future__ import annotations

import pytest

from batch_observability import SLA
from batch_observability.ledger.records import Margin
from batch_observability.objective import OBJECTIVES
from batch_observability.schema import Outcome
from batch_observability.sidecar.ending import Ending
from batch_observability.sidecar.kept import judge_run
from batch_observability.sidecar.promises import promises_of
from batch_observability.sla.judge import Judgement, Kept, judge, lateness
from batch_observability.sla.promises import deadlines
from batch_observability.sla.telling import Cause
from tests.sidecar.endings import HOST, PID, observed
from tests.sidecar.frames import context
from tests.sla.causes import DUE, SECOND, model

START = DUE + 60 * SECOND
NOT_SUCCESS = sorted(set(Outcome) - {Outcome.SUCCESS, Outcome.SKIPPED})


def judged(
    outcome=Outcome.SUCCESS, *, took_s=600, start_s=60, first_start_s=None, rows=None, first_try=True, **promised
):
    """Judge a run that is due at six; times are seconds from then."""
    sla = SLA(**promised)
    first = start_s if first_start_s is None else first_start_s
    found = judge(
        sla,
        deadlines(sla, due=DUE, start=DUE + first * SECOND),
        outcome=outcome,
        first_start_ns=DUE + first * SECOND,
        start_ns=DUE + start_s * SECOND,
        end_ns=DUE + round((start_s + took_s) * SECOND),
        rows=rows,
        first_try=first_try,
    )
    return {one.objective: one for one in found}


def verdicts(*arguments, **values) -> dict[str, bool]:
    return {name: one.kept for name, one in judged(*arguments, **values).items()}


# --- By the clock --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promised", "margin_s"),
    [
        ({"start_within": "1m"}, 0),
        ({"start_within": "59s"}, -1),
        ({"finish_within": "10m"}, 0),
        ({"finish_within": "9m59s"}, -1),
        ({"finish_within": "1h"}, 3000),
        ({"finish_by": "06:11 UTC"}, 0),
        ({"finish_by": "06:10:59 UTC"}, -1),
        ({"finish_by": "+1d 06:11 UTC"}, 86_400),
    ],
)
def test_a_promise_is_kept_up_to_its_deadline_and_has_a_margin(promised, margin_s):
    ((name, one),) = judged(**promised).items()
    assert {name: one.promise} == promised
    assert (one.kept, one.margin_s) == (margin_s >= 0, margin_s)


def test_what_was_broken_was_broken_at_its_deadline():
    late = judged(finish_within="5m", start_within="30s")
    assert late["finish_within"].moment_ns == late["finish_within"].deadline_ns == START + 300 * SECOND
    assert late["start_within"].moment_ns == DUE + 30 * SECOND
    assert late["finish_within"].reason == "finished 5m late"
    assert late["start_within"].reason == "started 30s late"


def test_what_was_kept_was_decided_at_the_end():
    one = judged(finish_within="20m")["finish_within"]
    assert one.moment_ns == START + 600 * SECOND
    assert one.reason == "finished 10m before its time"


def test_retries_are_part_of_the_time_to_finish():
    one = judged(finish_within="1h", start_s=3600, first_start_s=0, took_s=600, first_try=False)
    assert (one["finish_within"].kept, one["finish_within"].margin_s) == (False, -600)


def test_the_start_is_judged_once_by_the_first_try():
    assert verdicts(start_within="5m") == {"start_within": True}
    assert verdicts(start_within="5m", start_s=7200, first_start_s=60, first_try=False) == {}


# --- Who does not succeed ------------------------------------------------------------------------------------------

ALL = {
    "start_within": "5m",
    "finish_within": "30m",
    "finish_by": "07:00 UTC",
    "min_duration": "1h",
    "min_rows": 10,
    "max_rejected_ratio": 0,
}


@pytest.mark.parametrize("outcome", NOT_SUCCESS)
def test_a_run_that_did_not_succeed_in_time_may_still_be_tried_again(outcome):
    """Nothing is said of its finish; what it did, and did not do, is not judged."""
    assert verdicts(outcome, **ALL) == {"start_within": True}


@pytest.mark.parametrize("outcome", NOT_SUCCESS)
def test_a_run_that_did_not_succeed_has_broken_what_was_over_when_it_ended(outcome):
    found = judged(outcome, took_s=2400, **ALL)
    assert {name: one.kept for name, one in found.items()} == {"start_within": True, "finish_within": False}
    assert found["finish_within"].reason == f"not finished: {outcome.value} 10m late"
    assert found["finish_within"].margin_s == -600


@pytest.mark.parametrize("outcome", NOT_SUCCESS)
def test_at_its_deadline_it_may_still_be_tried_again(outcome):
    assert verdicts(outcome, took_s=1800, **ALL) == {"start_within": True}


def test_a_late_start_is_broken_however_the_run_ends():
    assert verdicts(Outcome.KILLED, start_s=600, **ALL) == {"start_within": False}


def test_a_run_that_was_skipped_had_nothing_to_keep():
    assert judged(Outcome.SKIPPED, start_s=9999, **ALL) == {}


# --- What a run did ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("took_s", "kept"), [(59.999, False), (60, True), (61, True), (0, False)])
def test_a_run_may_be_too_fast(took_s, kept):
    one = judged(min_duration="1m", took_s=took_s)["min_duration"]
    assert (one.kept, one.margin_s, one.deadline_ns) == (kept, pytest.approx(took_s - 60), None)


def test_only_the_try_that_succeeded_is_measured():
    assert verdicts(min_duration="30m", took_s=600, start_s=7200, first_start_s=0, first_try=False) == {
        "min_duration": False
    }


@pytest.mark.parametrize(("written", "kept"), [(999, False), (1000, True), (1001, True)])
def test_a_run_is_to_write_enough(written, kept):
    one = judged(min_rows=1000, rows={"read": 0, "written": written, "rejected": 0})["min_rows"]
    assert (one.kept, one.margin_s, one.reason) == (kept, None, f"wrote {written:,} rows")


def test_a_run_that_said_nothing_of_rows_has_written_none():
    one = judged(min_rows=1)["min_rows"]
    assert (one.kept, one.reason) == (False, "never said how many rows it wrote")
    assert verdicts(min_rows=0) == {"min_rows": True}


@pytest.mark.parametrize(
    ("read", "rejected", "kept"),
    [(100, 5, True), (100, 6, False), (0, 0, True), (0, 1, False), (100, 0, True)],
)
def test_a_run_may_reject_a_share_of_what_it_read(read, rejected, kept):
    rows = {"read": read, "written": 0, "rejected": rejected}
    assert verdicts(max_rejected_ratio="5%", rows=rows) == {"max_rejected_ratio": kept}


def test_a_run_that_said_nothing_of_rows_has_rejected_none():
    assert verdicts(max_rejected_ratio=0) == {"max_rejected_ratio": True}


@pytest.mark.parametrize("promised", [{"freshness": "1d"}, {"success_rate": "99%"}, {}])
def test_what_concerns_the_model_as_a_whole_is_not_judged_by_a_run(promised):
    assert judged(**promised) == {}


# --- The sum -------------------------------------------------------------------------------------------------------


def test_what_was_kept_is_a_mask_in_the_order_of_the_objectives():
    found = judged(rows={"read": 10, "written": 10, "rejected": 0}, **ALL)
    kept = Kept(judgements=tuple(found.values()))
    assert {name for bit, name in enumerate(OBJECTIVES) if kept.mask >> bit & 1} == set(ALL) - {"min_duration"}
    assert Kept().mask == 0


def test_what_became_of_promises_is_plain_values():
    one = Judgement("finish_within", "20m", kept=True, moment_ns=1, margin_s=2.0, deadline_ns=3, reason="")
    assert Kept((one,), (Margin(key="k", margin_s=2.0),)).mask == 2


@pytest.mark.parametrize(
    ("left_s", "words"),
    [
        (0, "0s before its time"),
        (90, "1m30s before its time"),
        (-90.4, "1m30s late"),
        (-0.25, "0.25s late"),
        (-0.0001, "0s late"),
        (-86_400 * 400, "400d late"),
    ],
)
def test_lateness_is_said_in_words(left_s, words):
    assert lateness(left_s) == words


# --- A run that goes on after its promise is broken ----------------------------------------------------------------


def test_time_that_is_granted_after_a_breach_does_not_undo_it(host):
    """It was counted and told: it stays one judgement, and a breach."""
    of = context(model=model(finish_within="20m"), start_ns=DUE, slot="manual__1", due_ns=DUE)
    observation = observed({"t": "extend_sla", "ts": DUE, "by_s": 3600.0, "reason": "", "text": ""}, run=of)
    promises = promises_of(observation, host.delivery(), "sidecar", pid=PID, host=HOST)
    late = {"objective": "finish_within", "promise": "20m", "moment_ns": DUE + 1200 * SECOND}
    promises.teller.promised(promises.subject, "breached", Cause(key=promises.subject.key("finish_within"), **late))
    end = Ending(Outcome.SUCCESS, DUE + 2400 * SECOND, PID)
    kept, _ = judge_run(promises, observation, end, 5.0)
    assert [one.kept for one in kept.judgements] == [False]
    assert kept.mask == 0
