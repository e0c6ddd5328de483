"""A catalog is read strictly: as it is written, with a line that says what is wrong and where."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_observability.catalog import Catalog, CatalogError, load

WHOLE = """\
# Models of the growth team.
models:
  - name: churn
    version: 1.10
    service: growth
    owner: team-growth
    tier: 1
    description: Who will leave, by day
    runbook: https://wiki.example.com/churn
    sla: {finish_within: 20m, finish_by: 12:30 Europe/London, success_rate: 99%}
    schedule: "10 3 * * *"
    timezone: Europe/London
    timeout: 2h
    grace: 1m
    overlap: skip
    retries: 2
    env_file: /etc/churn.env
  - name: fraud
"""


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a text as a catalog."""

    def of(text, cache=None):
        path = tmp_path / "batch_models.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(path, cache)

    return of


def test_a_model_is_all_that_is_said_of_it(read):
    one = read(WHOLE).models["churn"]
    assert (one.model.version, one.model.service, one.model.owner, one.model.tier) == (
        "1.10",
        "growth",
        "team-growth",
        "1",
    )
    assert one.model.objectives() == {
        "finish_within": "20m",
        "finish_by": "12:30 Europe/London",
        "success_rate": "0.99",
    }
    assert (one.schedule, one.timezone, one.overlap, one.retries) == ("10 3 * * *", "Europe/London", "skip", 2)
    assert (one.timeout, one.grace) == (timedelta(hours=2), timedelta(minutes=1))
    assert one.env_file == "/etc/churn.env"
    assert one.lines["schedule"] == 11


def test_a_model_may_be_only_a_name(read):
    one = read(WHOLE).models["fraud"]
    assert (one.model.service, one.schedule, one.timeout, one.retries, one.overlap) == ("fraud", "", None, None, "")
    assert [known.model.name for known in read(WHOLE).scheduled()] == ["churn"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "models: []\n"])
def test_a_catalog_may_be_empty(read, text):
    assert read(text).models == {}


def test_no_catalog_is_an_empty_one():
    assert load(None) == Catalog()


def test_what_is_merged_gives_way_to_what_is_written(read):
    text = """\
models:
  - &nightly {name: a, owner: growth, tier: 2, schedule: '@daily'}
  - <<: *nightly
    name: b
    tier: 1
"""
    two = read(text).models["b"]
    assert (two.model.owner, two.model.tier, two.schedule) == ("growth", "1", "@daily")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("models:\n  - name: churn\n    ovner: x\n", 3, "a model has 'ovner': write owner"),
        ("models:\n  - name: churn\n    zzz: x\n", 3, "a model has 'zzz': write one of name, version"),
        ("models:\n  - name: churn\n    tier: 1\n    tier: 2\n", 4, "a model has 'tier' twice: leave one out"),
        ("models:\n  - owner: x\n", 2, "a model has no name: write 'name:'"),
        ("models:\n  - name: churn\n    owner:\n", 3, "owner of model 'churn' is empty"),
        ("models:\n  - name: churn\n    owner: [a]\n", 3, "owner of model 'churn' is a sequence: write one value"),
        ("models:\n  - name: churn\n    owner: {a: b}\n", 3, "owner of model 'churn' is a mapping"),
        ("models:\n  - name: -x\n", 2, "batch model name is '-x'"),
        ("models:\n  - name: churn\n    tier: 0\n", 3, "tier of batch model 'churn' is '0'"),
        ("models:\n  - name: churn\n    sla: 20m\n", 3, "sla of model 'churn' is '20m': write keys and values"),
        (
            "models:\n  - name: churn\n    sla:\n      finish_in: 20m\n",
            4,
            "sla of model 'churn' has 'finish_in': write finish",
        ),
        (
            "models:\n  - name: churn\n    sla:\n      min_rows: 1\n      finish_within: soon\n",
            5,
            "is 'soon': not a duration",
        ),
        (
            "models:\n  - name: churn\n    timeout: 2 hours\n",
            3,
            "timeout of model 'churn' is '2 hours': not a duration",
        ),
        (
            "models:\n  - name: churn\n    overlap: maybe\n",
            3,
            "overlap of model 'churn' is 'maybe': none of allow, skip, wait",
        ),
        (
            "models:\n  - name: churn\n    retries: -1\n",
            3,
            "retries of model 'churn' is '-1': not a number from 0 to 100",
        ),
        ("models:\n  - name: churn\n  - name: x\n  - name: churn\n", 4, "model 'churn' is in line 2 already"),
        ("models: churn\n", 1, "models is 'churn': write a list"),
        ("models:\n  churn: {}\n", 2, "models is a mapping: write a list"),
        ("models:\n  - churn\n", 2, "a model is 'churn': write keys and values"),
        ("model:\n  - name: churn\n", 1, "the file has 'model': write models"),
        ("- name: churn\n", 1, "the file is a sequence"),
        ("models:\n  - name: churn\n   owner: x\n", 3, "no YAML: "),
        ("models:\n  - name: churn\n    owner: *nobody\n", 3, "no YAML: "),
        ("models:\n  - name: 'churn\n", None, "no YAML: "),
    ],
)
def test_a_mistake_is_one_line_with_its_place(read, tmp_path, text, line, said):
    with pytest.raises(CatalogError) as caught:
        read(text)
    message = str(caught.value)
    place = f"{tmp_path / 'batch_models.yaml'}:{'' if line is None else f'{line}: '}"
    assert message.startswith(place)
    assert said in message
    assert "\n" not in message


def test_a_file_that_is_not_there_is_a_mistake(tmp_path):
    with pytest.raises(CatalogError, match="cannot be read: No such file or directory; name another, or none"):
        load(tmp_path / "nowhere.yaml")


def test_a_model_that_is_merged_into_itself_is_a_mistake(read):
    with pytest.raises(CatalogError, match="merged into itself"):
        read("models:\n  - &a\n    name: x\n    <<: *a\n")


@given(st.binary(max_size=120) | st.text(alphabet="models:\n -name{}[]&*<'\"#x!|>%", max_size=60).map(str.encode))
def test_any_bytes_are_a_catalog_or_a_mistake(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "c.yaml"
    path.write_bytes(content)
    try:
        said = str(load(path).files[0])
    except CatalogError as error:
        said = str(error)
    assert said.startswith((str(path), "catalog "))
    assert "\n" not in said


def test_what_was_read_is_read_from_json_the_next_time(read, tmp_path, monkeypatch):
    first = read(WHOLE, tmp_path / "state")
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert load(tmp_path / "batch_models.yaml", tmp_path / "state") == first


def test_what_was_read_is_forgotten_when_the_file_changes(read, tmp_path):
    read(WHOLE, tmp_path / "state")
    assert set(read("models:\n  - name: other\n", tmp_path / "state").models) == {"other"}


def test_a_state_folder_that_cannot_be_written_costs_nothing_but_time(read, tmp_path):
    (tmp_path / "state").write_text("a file")
    assert set(read(WHOLE, tmp_path / "state").models) == {"churn", "fraud"}
    assert (tmp_path / "state").is_file()
