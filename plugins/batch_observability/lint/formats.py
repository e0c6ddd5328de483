"""
Findings for programs: JSON, SARIF 2.1.0 for code scanning, and the commands by which GitHub annotates lines.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html,
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batch_observability._version import __version__
from batch_observability.lint.findings import Finding, Severity
from batch_observability.lint.rules import RULES, Rule
from batch_observability.lint.score import Score
from batch_observability.lint.series import Projection

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "ROOT"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


@dataclass(frozen=True, kw_only=True)
class Report:
    """
    All that is said.

    Attributes:
        findings: by place.
        scores: by owner, the lowest first, then of all.
        projection: custom metrics.
        budget: the greatest number of these that is well, None if nobody said.
        models, files: how many were looked at.
        silenced: findings that comments silence.
        history: what was made of the ledger, in a few words.
    """

    findings: Sequence[Finding]
    scores: Sequence[Score] = ()
    projection: Projection
    budget: int | None = None
    models: int = 0
    files: int = 0
    silenced: int = 0
    history: str = ""
    counts: Counter[Severity] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", Counter(one.severity for one in self.findings))


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as values of JSON."""
    projection = report.projection
    by_model = sorted(projection.by_model.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "findings": [asdict(one) for one in report.findings],
        "scores": [{**asdict(one), "owner": one.owner or None} for one in report.scores],
        "models": report.models,
        "files": report.files,
        "silenced": report.silenced,
        "errors": report.counts[Severity.ERROR],
        "warnings": report.counts[Severity.WARNING],
        "notes": report.counts[Severity.NOTE],
        "history": report.history,
        "custom_metrics": {
            "projected": projection.total,
            "budget": report.budget,
            "by_metric": {name: round(number) for name, number in projection.by_metric.items()},
            "by_model": {name: round(number) for name, number in by_model},
            "assumed": asdict(projection.assumed),
        },
    }


def sarif(findings: Iterable[Finding], root: Path) -> str:
    """Return findings as a SARIF log; files below `root` are named from there."""
    order = list(RULES)
    seen: Counter[str] = Counter()
    results = []
    for one in findings:
        fingerprint = _fingerprint(one, root)
        seen[fingerprint] += 1
        result: dict[str, Any] = {
            "ruleId": one.rule,
            "ruleIndex": order.index(one.rule),
            "level": str(one.severity),
            "message": {"text": f"{one.message}: {one.remedy}" if one.remedy else one.message},
            # What stays the same when lines are added above; the second of two alike has a number of its own.
            "partialFingerprints": {"batchobsFinding/v1": f"{fingerprint}:{seen[fingerprint]}"},
            "properties": {"model": one.model, "owner": one.owner},
        }
        if one.file:
            region = {"region": {"startLine": one.line}} if one.line else {}
            result["locations"] = [{"physicalLocation": {"artifactLocation": _artifact(one.file, root), **region}}]
        results.append(result)
    driver = {
        "name": "batchobs",
        "semanticVersion": __version__,
        "rules": [_described(rule) for rule in RULES.values()],
    }
    base = {_ROOT: {"uri": f"{root.resolve().as_uri()}/"}}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": base,
        "results": results,
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1)


def _described(rule: Rule) -> dict[str, Any]:
    text = f"{rule.description[0].upper()}{rule.description[1:]}."
    help_ = f"{text} {rule.remedy[0].upper()}{rule.remedy[1:]}. A comment silences it: # batchobs: ignore={rule.id}"
    markdown = f"{text}\n\n**What to do:** {rule.remedy}.\n\nA comment silences it: `# batchobs: ignore={rule.id}`"
    return {
        "id": rule.id,
        "name": "".join(part.capitalize() for part in rule.id.split("-")),
        "shortDescription": {"text": text},
        "help": {"text": help_, "markdown": markdown},
        "defaultConfiguration": {"level": str(rule.severity)},
    }


def _fingerprint(one: Finding, root: Path) -> str:
    place = _relative(one.file, root) or one.file
    # A message may name the line of another place.
    message = re.sub(r":\d+", "", one.message)
    return sha256(f"{one.rule}\0{place}\0{one.model}\0{message}".encode("utf-8", "replace")).hexdigest()[:32]


def _artifact(file: str, root: Path) -> dict[str, str]:
    below = _relative(file, root)
    if below is None:
        return {"uri": Path(file).resolve().as_uri()}
    return {"uri": quote(below), "uriBaseId": _ROOT}


def _relative(file: str, root: Path) -> str | None:
    """Return a file as it is named from a folder, None if it is not below it."""
    try:
        return Path(file).resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None


def github(findings: Iterable[Finding], root: Path) -> str:
    """Return findings as workflow commands, one a line."""
    lines = []
    for one in findings:
        properties = {"title": one.rule}
        if one.file:
            properties = {"file": _relative(one.file, root) or one.file, "line": str(one.line or 1), **properties}
        said = ",".join(f"{name}={_escaped(value, ',:')}" for name, value in properties.items())
        text = f"{one.message}\n{one.remedy}" if one.remedy else one.message
        lines.append(f"::{_LEVELS[one.severity]} {said}::{_escaped(text)}")
    return "\n".join(lines)


def _escaped(text: str, more: str = "") -> str:
    for letter in "%\r\n" + more:
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text
