"""What programs read: SARIF 2.1.0, and GitHub's workflow commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from batch_observability.lint.findings import Finding, Severity
from batch_observability.lint.formats import github, sarif
from batch_observability.lint.rules import RULES

ONE = Finding(
    rule="missing-owner",
    severity=Severity.ERROR,
    message="model 'churn' has no owner",
    file="dags/ä b.py",
    line=3,
    model="churn",
    remedy="name 100% of them:\nteam-risk",
)
TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
# Of the OASIS schema, the objects that are written here, with all that they require; nothing else may be in them.
SCHEMA = {
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"enum": ["2.1.0"]},
        "runs": {"type": "array", "items": {"$ref": "#/definitions/run"}},
    },
    "definitions": {
        "run": {
            "type": "object",
            "required": ["tool"],
            "additionalProperties": False,
            "properties": {
                "tool": {
                    "type": "object",
                    "required": ["driver"],
                    "additionalProperties": False,
                    "properties": {"driver": {"$ref": "#/definitions/driver"}},
                },
                "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                "originalUriBaseIds": {
                    "type": "object",
                    "additionalProperties": {"$ref": "#/definitions/artifactLocation"},
                },
                "results": {"type": "array", "items": {"$ref": "#/definitions/result"}},
            },
        },
        "driver": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": {"type": "string"},
                "semanticVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+"},
                "rules": {"type": "array", "uniqueItems": True, "items": {"$ref": "#/definitions/rule"}},
            },
        },
        "rule": {
            "type": "object",
            "required": ["id"],
            "additionalProperties": False,
            "properties": {
                "id": {"type": "string"},
                "name": {"type": "string"},
                "shortDescription": {"$ref": "#/definitions/message"},
                "help": {"$ref": "#/definitions/message"},
                "defaultConfiguration": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"level": {"$ref": "#/definitions/level"}},
                },
            },
        },
        "message": {**TEXT, "additionalProperties": False, "properties": {**TEXT["properties"], "markdown": {}}},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "artifactLocation": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"uri": {"type": "string", "format": "uri-reference"}, "uriBaseId": {"type": "string"}},
        },
        "result": {
            "type": "object",
            "required": ["message"],
            "additionalProperties": False,
            "properties": {
                "ruleId": {"enum": list(RULES)},
                "ruleIndex": {"type": "integer", "minimum": 0, "maximum": len(RULES) - 1},
                "level": {"$ref": "#/definitions/level"},
                "message": {"$ref": "#/definitions/message"},
                "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
                "properties": {"type": "object"},
                "locations": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "physicalLocation": {
                                "type": "object",
                                "required": ["artifactLocation"],
                                "additionalProperties": False,
                                "properties": {
                                    "artifactLocation": {"$ref": "#/definitions/artifactLocation"},
                                    "region": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "properties": {"startLine": {"type": "integer", "minimum": 1}},
                                    },
                                },
                            }
                        },
                    },
                },
            },
        },
    },
}


def written(*findings, root=Path()):
    log = json.loads(sarif(findings, root))
    jsonschema.validate(log, SCHEMA, format_checker=jsonschema.FormatChecker())
    return log["runs"][0]


def test_each_rule_is_described_with_help():
    rules = written()["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    assert all(rule["help"]["text"].count(rule["id"]) and rule["help"]["markdown"] for rule in rules)


def test_a_finding_is_a_result_at_its_place():
    (result,) = written(ONE)["results"]
    assert RULES[result["ruleId"]] is list(RULES.values())[result["ruleIndex"]]
    assert result["level"] == "error"
    assert result["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "dags/%C3%A4%20b.py", "uriBaseId": "ROOT"},
                "region": {"startLine": 3},
            }
        }
    ]
    assert result["properties"] == {"model": "churn", "owner": ""}


def test_a_file_elsewhere_has_its_whole_uri_and_a_finding_of_none_no_place(tmp_path):
    elsewhere, nowhere = written(replace(ONE, file="/x/y.yaml", line=0), replace(ONE, file="", line=0))["results"]
    assert elsewhere["locations"] == [{"physicalLocation": {"artifactLocation": {"uri": "file:///x/y.yaml"}}}]
    assert "locations" not in nowhere
    assert written(root=tmp_path)["originalUriBaseIds"]["ROOT"]["uri"] == f"file://{tmp_path}/"


def prints(*findings):
    return [one["partialFingerprints"]["batchobsFinding/v1"] for one in written(*findings)["results"]]


def test_a_fingerprint_stays_when_lines_move_and_tells_findings_apart():
    moved = replace(ONE, line=9, message="model 'churn' has no owner, see a.yaml:12")
    (first,), (second,) = prints(moved), prints(replace(moved, line=1, message=moved.message.replace("12", "7")))
    assert first == second
    others = (ONE, replace(ONE, model="fraud"), replace(ONE, rule="missing-tier"), replace(ONE, file="x.py"), ONE)
    assert len(set(prints(*others))) == len(others)


@pytest.mark.parametrize(("severity", "command"), [("error", "error"), ("warning", "warning"), ("note", "notice")])
def test_an_annotation_is_a_line_with_all_that_is_special_escaped(severity, command):
    said = github([replace(ONE, severity=Severity(severity), file="a,b:c.py")], Path())
    assert said == (
        f"::{command} file=a%2Cb%3Ac.py,line=3,title=missing-owner"
        "::model 'churn' has no owner%0Aname 100%25 of them:%0Ateam-risk"
    )


def test_an_annotation_of_no_file_is_about_all():
    assert github([replace(ONE, file="", line=0, remedy="")], Path()) == (
        "::error title=missing-owner::model 'churn' has no owner"
    )
