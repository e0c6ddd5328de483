"""What may be declared of a batch model, and how a mistake in it is told."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from batch_observability import SLA, BatchModel, ModelError

EVERYTHING = {
    "name": "flight-delay/score_v2.1",
    "version": "1.4+abc",
    "service": "flight-delay",
    "owner": "team-flights",
    "tier": 2,
    "sla": SLA(finish_within="20m"),
    "description": "Delay of a flight in minutes.",
    "runbook": "https://example.com/runbook",
}


def problem(**changes) -> str:
    """Return the message for a model with one field changed; it is one line."""
    with pytest.raises(ModelError) as caught:
        BatchModel(**{**EVERYTHING, **changes})
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_every_field_is_kept_as_it_was_written():
    model = BatchModel(**EVERYTHING)
    assert {f.name: getattr(model, f.name) for f in fields(model)} == EVERYTHING


def test_only_the_name_is_needed():
    model = BatchModel("churn")
    assert (model.version, model.service, model.owner, model.tier) == ("0", "churn", "", 3)
    assert model.sla is None
    assert model.objectives() == {}


def test_objectives_are_those_of_the_sla():
    assert BatchModel(**EVERYTHING).objectives() == {"finish_within": "20m"}


def test_a_model_error_is_a_value_error():
    assert issubclass(ModelError, ValueError)


@pytest.mark.parametrize("name", ["a", "0", "Churn", "team/churn", "a.b_c-d", "a" * 100])
def test_a_name_is_letters_digits_and_four_signs(name):
    assert BatchModel(name).name == name


@pytest.mark.parametrize(
    "name", ["", " ", "-a", "/a", "a b", "a\n", "ä", "a|b", "a,b", "a#b", "a" * 101, None, 7, b"a"]
)
def test_another_name_is_refused(name):
    message = problem(name=name)
    assert message.startswith(f"batch model name is {name!r}: write up to 100 letters, digits and _ . - /")


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("service", "a b", "letters, digits and _ . - /"),
        ("service", "a" * 101, "up to 100"),
        ("service", 7, "letters, digits"),
        ("version", "", "without spaces"),
        ("version", "1 4", "without spaces"),
        ("version", "1\n", "without spaces"),
        ("version", "1,4", "write a version"),
        ("version", "1|4", "write a version"),
        ("version", "1#4", "write a version"),
        ("version", None, "write a version"),
        ("version", True, "write a version"),
        ("owner", "a\nb", "name the team"),
        ("owner", "a,b", "name the team"),
        ("owner", "a|b", "name the team"),
        ("owner", None, "name the team"),
        ("tier", "", "number from 1 or a short label"),
        ("tier", -1, "number from 1"),
        ("tier", "very high", "short label"),
        ("tier", "a" * 51, "short label"),
        ("tier", True, "number from 1"),
        ("sla", "20m", "SLA(finish_within='20m')"),
        ("sla", 20, "SLA(finish_within='20m')"),
        ("description", None, "write text"),
        ("runbook", 7, "write text"),
    ],
)
def test_a_wrong_field_is_told_with_model_value_and_remedy(field, value, remedy):
    message = problem(**{field: value})
    assert message.startswith(f"{field} of batch model 'flight-delay/score_v2.1' is {value!r}: ")
    assert remedy in message


@pytest.mark.parametrize("tier", [0, "0", None])
def test_a_tier_is_a_number_from_1_or_a_label(tier):
    assert f"tier of batch model 'flight-delay/score_v2.1' is {tier!r}: write a number from 1" in problem(tier=tier)


@pytest.mark.parametrize("field", ["version", "owner"])
def test_what_is_too_long_is_told_the_limit(field):
    assert "100" in problem(**{field: "a" * 101}).partition(": ")[2]


def test_a_version_that_is_not_a_number_is_refused():
    assert "version" in problem(version=float("nan"))


@pytest.mark.parametrize(("version", "text"), [(2, "2"), (1.4, "1.4"), ("2024.1-rc", "2024.1-rc")])
def test_a_version_may_be_written_as_a_number(version, text):
    assert BatchModel("churn", version=version).version == text


@pytest.mark.parametrize("tier", [1, 99, "1", "gold", "tier-1", "p0.5_x"])
def test_a_tier_is_a_number_or_a_label(tier):
    assert BatchModel("churn", tier=tier).tier == tier


@pytest.mark.parametrize("service", ["", None])
def test_the_service_is_the_name_if_there_is_none(service):
    assert BatchModel("churn", service=service).service == "churn"


def test_an_sla_may_be_a_mapping():
    """As a catalog in YAML has it."""
    model = BatchModel("churn", sla={"finish_within": "20m", "min_rows": 5})
    assert model.sla == SLA(finish_within="20m", min_rows=5)


@pytest.mark.parametrize("sla", [{"on_time": "20m", "min_rows": 5}, SLA(on_time="20m", min_rows=5)])
def test_an_unknown_objective_is_told_with_the_model_and_those_that_there_are(sla):
    message = problem(sla=sla)
    assert message.startswith("SLA of model 'flight-delay/score_v2.1' has 'on_time': write one of ")
    assert message.partition("write one of ")[2].split(", ") == [
        "start_within",
        "finish_within",
        "finish_by",
        "min_duration",
        "freshness",
        "min_rows",
        "max_rejected_ratio",
        "success_rate",
        "window",
        "warn_at",
        "judge_backfills",
    ]


def test_a_misspelt_objective_is_told_what_was_meant():
    message = problem(sla=SLA(finish_in="20m"))
    assert message == "SLA of model 'flight-delay/score_v2.1' has 'finish_in': write 'finish_within'"


def test_a_mistake_in_an_sla_without_a_model_is_told_when_it_is_used():
    with pytest.raises(ModelError, match=r"^SLA 'finish_by' is '25:00': not a time of day"):
        SLA(finish_by="25:00").objectives()


def test_unknown_objectives_need_not_be_text():
    assert "write " in problem(sla={True: "20m", "finish_in": "20m"})


def test_a_bad_objective_in_a_mapping_is_told_with_the_model():
    assert problem(sla={"finish_by": "25:00"}).startswith(
        "SLA 'finish_by' of model 'flight-delay/score_v2.1' is '25:00': not a time of day; write HH:MM"
    )


def test_models_are_frozen():
    model = BatchModel(**EVERYTHING)
    for field in fields(model):
        with pytest.raises(FrozenInstanceError):
            setattr(model, field.name, "x")
    with pytest.raises(FrozenInstanceError):
        model.sla.min_rows = 1


def test_equal_models_are_equal_however_they_were_written():
    written = BatchModel("churn", version="2", sla=SLA(finish_within="90m", success_rate="99%"))
    again = BatchModel("churn", service="churn", version=2, sla={"finish_within": "1h30m", "success_rate": 0.99})
    assert written == again
    assert hash(written) == hash(again)
    assert len({written, again}) == 1


@pytest.mark.parametrize("field", ["name", "version", "service", "owner", "tier", "sla", "description", "runbook"])
def test_models_that_differ_in_a_field_differ(field):
    changes = {"sla": SLA(finish_within="21m"), "tier": 1}
    assert BatchModel(**EVERYTHING) != replace(BatchModel(**EVERYTHING), **{field: changes.get(field, "other")})


def test_the_repr_of_a_model_is_that_of_its_copies():
    """Airflow copies tasks, and hashes what it serialises: nothing in it may be of one process only."""
    model = BatchModel("churn", sla=SLA(finish_by="06:30 Europe/London", success_rate="99%"))
    for other in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other == model
        assert repr(other) == repr(model)
    code = (
        "from batch_observability import SLA, BatchModel; "
        "print(repr(BatchModel('churn', sla=SLA(finish_by='06:30 Europe/London', success_rate='99%'))))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == repr(model)
