"""The JSON Schema and the reader are of one mind, as far as JSON Schema can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from batch_observability.catalog import read
from batch_observability.catalog.fields import MODEL_KEYS, SLA_KEYS
from batch_observability.catalog.json_schema import json_schema
from tests.unit.test_catalog import WHOLE as ONE
from tests.unit.test_catalog_files import MODELS, WHOLE, WRONG, given, settings, st


class Editor(yaml.SafeLoader):
    """Reads YAML 1.2 as editors do: no times of day in base 60, no dates, `yes` is text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  (as PyYAML has it)


for tag, pattern, first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?[0-9]*\.[0-9]+", "-+0123456789."),
    ("null", r"null|", ["n", ""]),
    ("merge", r"<<", ["<"]),
):
    Editor.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), list(first))

Editor.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))

VALIDATOR = Draft202012Validator(json_schema())


def complaints(text):
    return [error.message for error in VALIDATOR.iter_errors(yaml.load(text, Loader=Editor))]


PAGE = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text(encoding="utf-8")
RIGHT = [
    *re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL),
    WHOLE,
    ONE,
    "",
    "models: []\n",
    "owners: [{team: a, contact: b}]\n",
    "models:\n  - &n {name: a, tier: 2}\n  - {<<: *n, name: b}\n",
    "models:\n  - {name: 7, version: 1.10, tier: gold, retries: 0, match: {dag_id: a*}, sla: {warn_at: 0.5}}\n",
    "models:\n  - {name: a, sla: {finish_by: +1d 06:30 Europe/London, judge_backfills: true, min_rows: 5}}\n",
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_the_reader_takes_the_schema_takes(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    assert read([tmp_path / "c.yaml"])[1] == []
    assert complaints(text) == []


@settings(max_examples=60, deadline=None)
@given(MODELS)
def test_any_right_catalog_is_right_to_the_schema(models):
    assert complaints(yaml.safe_dump({"models": models})) == []


@settings(max_examples=60, deadline=None)
@given(MODELS.filter(bool), st.sampled_from(sorted(WRONG)))
def test_any_mistake_in_a_value_is_one_to_the_schema(models, key):
    models[-1][key] = WRONG[key]
    assert complaints(yaml.safe_dump({"models": models})) != []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "models: churn",
        "models: [churn]",
        "model: []",
        "models: [{owner: x}]",
        "models: [{name: -x}]",
        "models: [{name: a, match: {}}]",
        "models: [{name: a, match: a.b}]",
        "models: [{name: a, match: {dag_id: a b}}]",
        "models: [{name: a, owner: {contact: x}}]",
        "models: [{name: a, owner: 'x|y'}]",
        "models: [{name: a, sla: 20m}]",
        "models: [{name: a, sla: {finish_in: 20m}}]",
        "models: [{name: a, sla: {success_rate: 1.5}}]",
        "models: [{name: a, schedule: daily}]",
        "models: [{name: a, tier: '0'}]",
        "models: [{name: a, service: a b}]",
        "models: [{name: a, owner: }]",
        "owners: {x: {oncall: risk}}",
        "owners: {x: y}",
        "owners: [{contact: y}]",
        "owners: {'a|b': }",
        "defaults: {name: x}",
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    assert read([tmp_path / "c.yaml"])[1] != []
    assert complaints(text) != []


def test_the_schema_is_one_and_says_what_each_key_means():
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    of_model = schema["properties"]["models"]["items"]["properties"]
    assert set(of_model) == set(MODEL_KEYS)
    assert set(of_model["sla"]["properties"]) == set(SLA_KEYS)
    assert all(one["description"] for one in (*of_model.values(), *of_model["sla"]["properties"].values()))
