"""Several files and folders are one catalog: models, owners, matches, links, and every mistake with its place."""

from __future__ import annotations

import os
import string
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_observability.catalog import Catalog, CatalogError, Match, Owner, load, read
from batch_observability.catalog.lookup import Lookup
from batch_observability.catalog.places import paths_of, watched
from batch_observability.config import ConfigError, Settings
from batch_observability.config import load as load_settings

WHOLE = """\
owners:
  team-risk: {contact: "#risk", oncall: "@pagerduty-risk"}
  team-growth:
defaults:
  tier: 2
  sla: {finish_within: 1h, success_rate: 99%}
models:
  - name: churn
    owner: team-risk
    tier: 1
    sla:
      finish_within: 20m
    links: {notebook: https://example.com/churn, source: git://example.com/churn.git}
    match:
      - {dag_id: churn_*, task_id: score}
      - dag_id: rescore
    instrument: true
  - name: fraud
    owner: {team: team-fraud, contact: fraud@example.com, oncall: "@oncall-fraud @slack-fraud"}
    match: {task_id: fraud}
  - name: growth
    owner: {team: team-risk, oncall: "@slack-growth"}
"""


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file of a catalog."""

    def of(text, name="batch_models.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return of


def said(mistakes):
    return [(Path(one.file).name, one.line, one.key) for one in mistakes]


# --- What is right -----------------------------------------------------------------------------------------------


def test_a_model_has_its_owner_its_tasks_and_its_links(write):
    catalog, mistakes = read([write(WHOLE)])
    assert mistakes == []
    churn, fraud, growth = catalog.models.values()
    risk = Owner(team="team-risk", contact="#risk", oncall="@pagerduty-risk")
    assert (churn.owner, churn.model.owner) == (risk, "team-risk")
    assert churn.match == (Match("churn_*", "score"), Match("rescore", "*"))
    assert churn.links == {"notebook": "https://example.com/churn", "source": "git://example.com/churn.git"}
    assert churn.instrument is True
    assert fraud.owner == Owner(team="team-fraud", contact="fraud@example.com", oncall="@oncall-fraud @slack-fraud")
    assert fraud.match == (Match("*", "fraud"),)
    assert growth.owner == Owner(team="team-risk", contact="#risk", oncall="@slack-growth")
    assert catalog.owners == {"team-risk": risk, "team-growth": Owner(team="team-growth")}


def test_defaults_hold_for_what_a_model_does_not_say(write):
    catalog = load(write(WHOLE))
    churn, fraud = catalog.models["churn"], catalog.models["fraud"]
    assert (churn.model.tier, fraud.model.tier) == ("1", "2")
    assert churn.model.objectives() == {"finish_within": "20m", "success_rate": "0.99"}
    assert fraud.model.objectives() == {"finish_within": "1h", "success_rate": "0.99"}
    assert (churn.lines["sla.finish_within"], churn.lines["sla.success_rate"], churn.lines["tier"]) == (12, 6, 10)
    assert churn.given == {"name", "owner", "tier", "sla.finish_within", "sla.success_rate"}


def test_owners_may_be_a_list(write):
    catalog, mistakes = read([write("owners:\n  - team: a\n    contact: x\n  - {team: b}\n")])
    assert (catalog.owners, mistakes) == ({"a": Owner(team="a", contact="x"), "b": Owner(team="b")}, [])


def test_what_is_merged_from_several_anchors_gives_way_in_their_order(write):
    text = """\
models:
  - &a {name: a, owner: x}
  - &b {name: b, owner: y, tier: 1}
  - {<<: [*a, *b], name: c}
"""
    three = load(write(text)).models["c"]
    assert (three.model.owner, three.model.tier) == ("x", "1")
    assert three.lines == {"name": 4, "owner": 2, "tier": 3}


def test_files_and_folders_are_one_catalog(write, tmp_path):
    write("models:\n  - {name: b, owner: team}\n", "teams/b.yml")
    write("models:\n  - name: a\n", "teams/a.yaml")
    write("not: read", "teams/notes.txt")
    owners = write("owners:\n  team: {contact: here}\n", "owners.yaml")
    catalog = load([tmp_path / "teams", owners, owners])
    assert list(catalog.models) == ["a", "b"]
    assert [path.name for path in catalog.files] == ["a.yaml", "b.yml", "owners.yaml"]
    assert catalog.models["b"].owner == Owner(team="team", contact="here")


# --- What is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (
            "models:\n  - name: a\n    match: a.b\n",
            3,
            "match",
            "match of model 'a' is 'a.b': write {dag_id: ..., task_id",
        ),
        (
            "models:\n  - name: a\n    match: {}\n",
            3,
            "match",
            "is empty, and so every task: write dag_id, task_id or bo",
        ),
        ("models:\n  - name: a\n    match: {dag: x}\n", 3, "match.dag", "match of model 'a' has 'dag': write dag_id"),
        (
            "models:\n  - name: a\n    match:\n      - dag_id: a b\n",
            4,
            "match.dag_id",
            "dag_id of model 'a' is 'a b': not an",
        ),
        (
            "models:\n  - name: a\n    links: [x]\n",
            3,
            "links",
            "links of model 'a' is a sequence: write keys and values",
        ),
        (
            "models:\n  - name: a\n    links:\n      x: y\n",
            4,
            "links.x",
            "link 'x' of model 'a' is 'y': not a URL; write",
        ),
        ("models:\n  - name: a\n    owner: {contact: x}\n", 3, "owner", "is a mapping without team: write 'team:'"),
        (
            "models:\n  - name: a\n    owner: 'x,y'\n",
            3,
            "owner",
            "owner of model 'a' is 'x,y': not a team's name; write",
        ),
        (
            "models:\n  - name: a\n    owner:\n      team: x\n      oncal: y\n",
            5,
            "owner.oncal",
            "has 'oncal': write oncall",
        ),
        (
            "models:\n  - name: a\n    instrument: 3\n",
            3,
            "instrument",
            "instrument of model 'a' is '3': neither true nor",
        ),
        (
            "models:\n  - name: a\n    schedule: daily\n",
            3,
            "schedule",
            "schedule of model 'a' is 'daily': not five columns",
        ),
        (
            "owners:\n  x: {oncall: risk}\n",
            2,
            "owners.oncall",
            "oncall of owner 'x' is 'risk': not Datadog's handle; wr",
        ),
        ("owners:\n  x: {phone: 1}\n", 2, "owners.phone", "owner 'x' has 'phone': write one of contact, oncall"),
        ("owners:\n  x: y\n", 2, "owners", "owner 'x' is 'y': write keys and values, such as contact: ..."),
        ("owners:\n  - contact: y\n", 2, "owners", "an owner has no team: write 'team:' and its name"),
        ("owners:\n  - team: a\n  - team: a\n", 3, "owners", "owner 'a' is in line 2 already: join the two"),
        ("owners:\n  'a|b':\n", 2, "owners", "owners has 'a|b': not a team's name"),
        ("defaults:\n  name: x\n", 2, "name", "defaults has 'name': write one of version, service"),
        (
            "defaults:\n  tier: 0\nmodels:\n  - name: a\n  - name: b\n",
            2,
            "tier",
            "tier of batch model 'defaults' is '0'",
        ),
        ("{}\n", 1, "", "the file has no models: write 'models:'"),
    ],
)
def test_a_mistake_has_file_line_key_value_and_remedy(write, text, line, key, words):
    path = write(text)
    _, mistakes = read([path])
    assert [(one.file, one.line, one.key) for one in mistakes] == [(str(path), line, key)]
    assert words in str(mistakes[0])
    assert str(mistakes[0]).startswith(f"{path}:{line}: ")
    with pytest.raises(CatalogError) as caught:
        load(path)
    assert str(caught.value) == str(mistakes[0])


def test_all_mistakes_are_told_and_what_is_right_is_there(write, tmp_path):
    first = write(
        "models:\n  - name: a\n    tier: 0\n    owner: x\n    retries: many\n"
        "    sla: {min_rows: -1, finish_within: 1h}\n"
        "  - owner: y\n  - name: -z\n    tier: 0\n  - name: b\n    ovner: x\n",
        "a.yaml",
    )
    second = write("models:\n  - name: c\n  - name: a\n    tier: 9\n", "b.yaml")
    catalog, mistakes = read([first, second, tmp_path / "none.yaml"])
    assert said(mistakes) == [
        ("none.yaml", 0, ""),
        ("a.yaml", 3, "tier"),
        ("a.yaml", 5, "retries"),
        ("a.yaml", 6, "sla.min_rows"),
        ("a.yaml", 7, "name"),
        ("a.yaml", 8, "name"),
        ("a.yaml", 9, "tier"),
        ("a.yaml", 11, "ovner"),
        ("b.yaml", 3, "name"),
    ]
    assert f"model 'a' is in {first}:2 already: join the two" in str(mistakes[-1])
    assert list(catalog.models) == ["a", "b", "c"]
    one = catalog.models["a"]
    assert (one.model.tier, one.model.owner, one.retries, one.model.objectives()) == (
        3,
        "x",
        None,
        {"finish_within": "1h"},
    )
    assert one.given == {"name", "owner", "sla.finish_within"}
    assert one.lines["tier"] == 3


def test_a_file_that_is_no_yaml_does_not_hide_the_others(write):
    catalog, mistakes = read([write("models: [", "a.yaml"), write("models: [{name: b}]", "b.yaml")])
    assert list(catalog.models) == ["b"]
    assert said(mistakes)[0][0] == "a.yaml"


def test_a_value_that_is_wrong_is_not_replaced_by_a_default(write):
    catalog, _ = read([write("defaults: {tier: 1}\nmodels:\n  - name: a\n    tier: 0\n")])
    assert "tier" not in catalog.models["a"].given


def test_a_pattern_with_a_mistake_matches_nothing(write):
    catalog, mistakes = read([write("models:\n  - name: a\n    match: [{dag_id: x, task: y}, {dag_id: z}]\n")])
    assert len(mistakes) == 1
    assert catalog.models["a"].match == (Match("z", "*"),)


@pytest.mark.parametrize(
    "text", ["models:\n  - &a {name: x, <<: {<<: *a}}\n", "models: &a [*a]\n", "owners: &a {x: *a}\n"]
)
def test_what_contains_itself_is_a_mistake(write, text):
    _, mistakes = read([write(text)])
    assert mistakes


def test_a_folder_without_files_is_a_mistake(tmp_path):
    _, mistakes = read([tmp_path])
    assert str(mistakes[0]) == f"catalog {tmp_path} holds no *.yaml file: put one there, or name another folder or file"


def test_a_folder_that_may_not_be_read_is_a_mistake(write, tmp_path, mocker):
    mocker.patch.object(Path, "iterdir", side_effect=PermissionError(13, "Permission denied"))
    _, mistakes = read([tmp_path])
    assert "cannot be read: Permission denied" in str(mistakes[0])


# --- Any catalog -------------------------------------------------------------------------------------------------

NAMES = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
FIELDS = {
    "version": st.sampled_from(["1.10", "2024-01-01", "7"]),
    "owner": NAMES | st.fixed_dictionaries({"team": NAMES}, optional={"contact": NAMES, "oncall": st.just("@x")}),
    "tier": st.sampled_from([1, 2, "gold"]),
    "description": NAMES,
    "runbook": st.just("https://example.com/a"),
    "links": st.dictionaries(NAMES, st.just("https://example.com/b"), max_size=2),
    "sla": st.fixed_dictionaries(
        {}, optional={"finish_within": st.just("1h"), "min_rows": st.integers(0, 9), "finish_by": st.just("12:30 UTC")}
    ),
    "match": st.lists(
        st.fixed_dictionaries({"dag_id": NAMES}, optional={"task_id": st.just("a*")}), min_size=1, max_size=2
    ),
    "schedule": st.sampled_from(["@daily", "1 2 * * *"]),
    "timezone": st.just("Europe/London"),
    "timeout": st.sampled_from(["90s", "1h30m"]),
    "overlap": st.sampled_from(["allow", "skip", "wait"]),
    "retries": st.integers(0, 100),
    "instrument": st.booleans(),
}
MODELS = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional=FIELDS), max_size=5, unique_by=lambda one: one["name"]
)
WRONG = {
    "ovner": "x",
    "version": "1 2",
    "tier": 0,
    "owner": ["x"],
    "sla": {"finish_within": "soon"},
    "match": {"dag": "x"},
    "links": {"x": "y"},
    "timeout": "2 hours",
    "overlap": "maybe",
    "retries": -1,
    "instrument": "perhaps",
    "schedule": "daily",
}


@settings(max_examples=60, deadline=None)
@given(MODELS, st.booleans())
def test_any_right_catalog_is_read_without_a_mistake(tmp_path_factory, models, flow):
    path = tmp_path_factory.mktemp("any") / "c.yaml"
    path.write_text(yaml.safe_dump({"models": models}, default_flow_style=flow, sort_keys=False))
    catalog, mistakes = read([path], path.parent)
    assert mistakes == []
    assert list(catalog.models) == [one["name"] for one in models]
    # From JSON it is the same.
    assert read([path], path.parent) == (catalog, [])


@settings(max_examples=60, deadline=None)
@given(MODELS.filter(bool), st.data())
def test_any_mistake_is_found_in_its_line_and_nothing_else(tmp_path_factory, models, data):
    model = data.draw(st.integers(0, len(models) - 1))
    key = data.draw(st.sampled_from(sorted(WRONG)))
    models[model].pop(key, None)
    models[model][key] = WRONG[key]
    lines = ["models:"]
    for number, one in enumerate(models):
        for place, (name, value) in enumerate(one.items()):
            lines.append(
                f"  {'-' if not place else ' '} {name}: {yaml.safe_dump(value, default_flow_style=True, width=999)}"
            )
            lines[-1] = lines[-1].split("\n")[0]
            if (number, name) == (model, key):
                line = len(lines)
    path = tmp_path_factory.mktemp("any") / "c.yaml"
    path.write_text("\n".join([*lines, ""]))
    catalog, mistakes = read([path])
    assert [(one.line, one.key.partition(".")[0]) for one in mistakes] == [(line, key)]
    assert len(catalog.models) == len(models)


# --- Where it is -------------------------------------------------------------------------------------------------


def test_a_setting_names_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/one")
    settings = load_settings({"BATCHOBS_CATALOG": f"{tmp_path}/a.yaml:~/models"})
    assert paths_of(settings) == [tmp_path / "a.yaml", Path("/home/one/models")]
    (tmp_path / "b.yaml").touch()
    assert watched(Settings(catalog=str(tmp_path))) == [tmp_path, tmp_path / "b.yaml"]


def test_a_relative_path_is_refused():
    with pytest.raises(
        ConfigError, match=r"'models\.yaml' is relative, and jobs run in folders of their own: write an"
    ):
        load_settings({"BATCHOBS_CATALOG": "models.yaml"})


def test_without_a_setting_it_is_that_of_airflows_home_if_there_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert paths_of(Settings()) == []
    (tmp_path / "batch_models.yaml").touch()
    assert paths_of(Settings()) == [tmp_path / "batch_models.yaml"]
    assert watched(Settings()) == [tmp_path / "batch_models.yaml", Path("/etc/batchobs/batch_models.yaml")]


# --- What was read is kept ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda folder: (folder / "b.yaml").write_text("models: [{name: b}]"), ["a", "b"]),
        (lambda folder: (folder / "a.yaml").rename(folder / "a.txt"), []),
        (lambda folder: (folder / "a.yaml").write_text("models: [{name: c}]"), ["c"]),
        (lambda folder: os.utime(folder / "a.yaml", (1, 1)), ["a"]),
    ],
    ids=["comes", "goes", "changes", "touched"],
)
def test_what_was_kept_is_forgotten_when_a_file_comes_goes_or_changes(write, tmp_path, change, names):
    write("models: [{name: a}]", "teams/a.yaml")
    folder, cache = tmp_path / "teams", tmp_path / "state"
    assert list(read([folder], cache)[0].models) == ["a"]
    kept = Lookup([folder], cache)
    assert kept.is_current()
    change(folder)
    assert not kept.is_current()
    assert list(read([folder], cache)[0].models) == names
    assert (Lookup([folder], cache).named("a") is None) == ("a" not in names)


def test_mistakes_are_kept_too(write, tmp_path, monkeypatch):
    path = write("models:\n  - name: a\n    tier: 0\n")
    first = read([path], tmp_path / "state")
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert read([path], tmp_path / "state") == first
    assert len(first[1]) == 1


@pytest.mark.parametrize("damage", ["", "{", '{"of": 1}', "null"])
def test_what_was_kept_and_is_damaged_is_read_again(write, tmp_path, damage):
    path = write(WHOLE)
    expected = read([path], tmp_path / "state")
    kept = tmp_path / "state" / "catalog.json"
    head, *rest = kept.read_text().split("\n")
    for text in (damage, "\n".join([head, *(["}"] * len(rest))])):
        kept.write_text(text)
        assert read([path], tmp_path / "state") == expected


def test_one_model_is_looked_up_without_yaml(write, tmp_path, monkeypatch):
    path, cache = write(WHOLE), tmp_path / "state"
    first = Lookup([path], cache)
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    second, catalog = Lookup([path], cache), read([path], cache)[0]
    for lookup in (first, second):
        assert lookup.of_task("churn_daily", "score") == lookup.named("churn") == catalog.models["churn"]
        assert lookup.of_task("churn_daily", "load") is lookup.named("nobody") is None
        assert lookup.first_mistake == ""
        assert lookup.owner("team-risk") == catalog.owners["team-risk"]
        assert lookup.owner("nobody") is None


def test_a_model_that_is_not_right_any_more_keeps_the_rest(write, tmp_path, mocker):
    path, cache = write("models: [{name: a, owner: x, sla: {finish_by: '06:30'}}]"), tmp_path / "state"
    assert Lookup([path], cache).named("a").model.objectives() == {"finish_by": "06:30 UTC"}
    mocker.patch("batch_observability.config.is_strict", return_value=True)
    one = Lookup([path], cache).named("a")
    assert (one.model.owner, one.model.sla) == ("x", None)
    catalog, mistakes = read([path], cache)
    assert catalog.models["a"].model.sla is None or not catalog.models["a"].model.objectives()
    assert "without a time zone" in str(mistakes[0])


def test_three_hundred_models_are_read_at_once(write):
    text = "models:\n" + "".join(f"  - {{name: m{number}, timeout: 1h}}\n" for number in range(300))
    catalog = load(write(text))
    assert isinstance(catalog, Catalog)
    assert catalog.models["m299"].timeout == timedelta(hours=1)
