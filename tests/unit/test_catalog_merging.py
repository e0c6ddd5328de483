"""Code over catalog over defaults: field by field, exactly as it is written, and told with its place."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability import SLA, BatchModel
from batch_observability.catalog import read
from batch_observability.catalog.merging import Said, as_given, merged, why

TEXT = """\
owners: {team-risk: {contact: "#risk", oncall: "@slack-risk"}}
models:
  - name: churn
    version: 1.10
    owner: team-risk
    tier: 1
    runbook: https://example.com/churn
    sla: {finish_within: 20m, min_rows: 5, warn_at: 0.5}
    match: {dag_id: churn}
    schedule: "@daily"
    retries: 2
    timeout: 1h
    instrument: false
"""


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    path = tmp_path_factory.mktemp("catalog") / "c.yaml"
    path.write_text(TEXT)
    catalog, mistakes = read([path])
    assert not mistakes
    return catalog.models["churn"]


# --- What is given -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (BatchModel("churn"), {"name"}),
        (BatchModel("churn", "3", "svc"), {"name", "version", "service"}),
        (BatchModel(name="churn", tier=3, version="0"), {"name", "tier", "version"}),
        (BatchModel("churn", owner="", sla=None, service=""), {"name"}),
        (BatchModel("churn", sla=SLA(warn_at=0.8, min_rows=None)), {"name", "sla.warn_at"}),
        (BatchModel("churn", sla={"finish_within": "1h"}), {"name", "sla.finish_within"}),
        (dataclasses.replace(BatchModel("churn", tier=1), version="3"), {"name", "tier", "version"}),
    ],
)
def test_what_is_written_is_given_and_nothing_else(model, fields):
    assert model.given == fields
    for same in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (same, same.given) == (model, fields)


def test_what_is_given_does_not_make_another_model():
    assert BatchModel("churn", tier=3) == BatchModel("churn")
    assert hash(BatchModel("churn", owner="")) == hash(BatchModel("churn"))
    assert repr(BatchModel("churn", tier=3)) == repr(BatchModel("churn"))


# --- What is merged ----------------------------------------------------------------------------------------------


def test_code_goes_before_the_catalog_and_the_catalog_before_defaults(entry):
    one = merged(BatchModel("churn", tier=3, service="svc", sla=SLA(finish_within="5m")), entry)
    assert (one.tier, one.service, one.owner, one.version) == (3, "svc", "team-risk", "1.10")
    assert (one.description, one.runbook) == ("", "https://example.com/churn")
    assert one.objectives() == {"finish_within": "5m", "min_rows": "5"}
    assert one.sla.warn_at == 0.5
    assert one.given == {
        *("name", "tier", "service", "owner", "version", "runbook"),
        *("sla.finish_within", "sla.min_rows", "sla.warn_at"),
    }


def test_a_model_that_the_catalog_does_not_have_is_as_it_is(entry):
    for model, of in ((BatchModel("churn"), None), (BatchModel("other"), entry)):
        assert merged(model, of) is model


CODE = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from(["0", "1.10", "9"]),
        "owner": st.sampled_from(["team-risk", "other"]),
        "tier": st.sampled_from([1, 3]),
        "service": st.sampled_from(["churn", "svc"]),
        "description": st.just("text"),
        "runbook": st.just("https://example.com/other"),
        "sla": st.fixed_dictionaries(
            {},
            optional={"finish_within": st.just("7m"), "warn_at": st.sampled_from([0.8, 0.9]), "min_rows": st.just(1)},
        ).map(lambda fields: SLA(**fields)),
    },
    # One that is made with all of its fields is taken for what `dataclasses.replace` makes.
).filter(lambda fields: len(fields) < 7)


@settings(max_examples=200, deadline=None)
@given(fields=CODE)
def test_each_field_is_of_the_first_that_says_it(entry, fields):
    code = BatchModel(name="churn", **fields)
    one = merged(code, entry)
    for key in ("version", "owner", "tier", "service", "description", "runbook"):
        source = code if key in fields else entry.model if key in entry.given else BatchModel("churn")
        assert getattr(one, key) == getattr(source, key)
    promised = fields.get("sla", SLA())
    for key in ("finish_within", "warn_at", "min_rows", "success_rate"):
        source = promised if key in promised.given else entry.model.sla
        assert getattr(one.sla, key) == getattr(source, key)
    assert merged(one, entry) == one


# --- Why ---------------------------------------------------------------------------------------------------------


def places(said):
    return {one.key: (one.value, one.source) for one in said}


def test_each_field_is_told_with_its_place(entry):
    code = [("dag.score", as_given(BatchModel("churn", tier=3, sla=SLA(min_rows=7))))]
    told = places(why("churn", code, entry, {}))
    file = entry.file
    assert told["tier"] == ("3", "code: dag.score")
    assert told["sla.min_rows"] == ("7", "code: dag.score")
    assert told["version"] == ("1.10", f"catalog: {file}:4")
    assert told["owner.oncall"] == ("@slack-risk", f"catalog: {file}:5")
    assert told["match"] == ("churn.*", f"catalog: {file}:9")
    assert told["retries"] == ("2", f"catalog: {file}:11")
    assert told["timeout"] == ("1h", f"catalog: {file}:12")
    assert told["instrument"] == ("false", f"catalog: {file}:13")
    assert told["service"] == ("churn", "default")
    assert told["description"] == ("", "default")


def test_places_that_say_something_else_are_all_told(entry):
    code = [(place, {"tier": tier}) for place, tier in (("a.x", "1"), ("a.y", "2"), ("b.z", "1"))]
    tiers = [one for one in why("churn", code, entry, {}) if one.key == "tier"]
    assert tiers == [Said("tier", "1", "code: a.x, b.z"), Said("tier", "2", "code: a.y")]


def test_another_team_has_another_contact(entry):
    assert "owner.oncall" not in places(why("churn", [("a.b", {"owner": "team-other"})], entry, {}))


def test_what_a_job_says_is_its_own_where_the_catalog_says_something_else(entry):
    told = places(
        why("churn", [], entry, {"tier": "2", "owner": "team-risk", "schedule": "@hourly", "version": "1.10"})
    )
    assert (told["tier"], told["schedule"]) == (("2", "job"), ("@hourly", "job"))
    assert told["owner"][1].startswith("catalog: ")
    assert places(why("other", [], None, {"service": "other", "owner": "x"})) == {
        **places(why("other", [], None, {})),
        "owner": ("x", "job"),
    }
