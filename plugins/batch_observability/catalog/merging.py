"""
Code over catalog over defaults: one model of what is said of it in several places, and who says what.

A field counts as said in code if it is written there, also if it is what it would be anyway: `tier=3` in a DAG file
holds against `tier: 1` in the catalog.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from batch_observability.catalog.values import Cataloged
from batch_observability.model import SLA, BatchModel, as_written
from batch_observability.objective import format_duration

_FIELDS = ("version", "service", "owner", "tier", "description", "runbook")
_SLA = "sla."
DEFAULT = "default"


@dataclass(frozen=True)
class Said:
    """A field of a model, its value as text, and where it comes from: code, catalog, a job, or nowhere."""

    key: str
    value: str
    source: str


def merged(model: BatchModel, entry: Cataloged | None) -> BatchModel:
    """Return a model that is declared in code, with what the catalog adds to it; of its SLA, objective by objective."""
    if entry is None or entry.model.name != model.name or entry.given <= model.given:
        return model
    values: dict[str, Any] = {"name": model.name}
    promised: dict[str, Any] = {}
    # What is said last counts.
    for source, given in ((entry.model, entry.given), (model, model.given)):
        values |= {key: getattr(source, key) for key in _FIELDS if key in given}
        promised |= {key[len(_SLA) :]: getattr(source.sla, key[len(_SLA) :]) for key in given if key.startswith(_SLA)}
    made = BatchModel(**values, sla=SLA(**promised) if promised else None)
    return as_written(made, (entry.given | model.given) & {"name", *_FIELDS})


def as_given(model: BatchModel) -> dict[str, str]:
    """Return what is written of a model, as text by field; `sla.finish_by` for one of the SLA."""
    given = model.given
    return {key: text for key, text in _texts(model).items() if key in given}


def why(
    name: str, code: Iterable[tuple[str, Mapping[str, str]]], entry: Cataloged | None, jobs: Mapping[str, str]
) -> list[Said]:
    """
    Return the fields of a model with where each comes from, the one that counts first.

    Args:
        name: of the model.
        code: what is given where in code; of several places that say something else, all are told.
        entry: of the catalog.
        jobs: what its cron job said last, as text by field; what the catalog does not say is the job's own.
    """
    code = list(code)
    in_catalog = _of_catalog(entry) if entry else {}
    if any(given.get("owner", text) != text for text, _ in [in_catalog.get("owner", ("", ""))] for _, given in code):
        # Another team's contact is not this one's.
        in_catalog = {key: value for key, value in in_catalog.items() if not key.startswith("owner.")}
    usual = _texts(BatchModel(name=name))
    said = []
    for key in dict.fromkeys([*usual, *in_catalog, *jobs, *(key for _, given in code for key in given)]):
        found: dict[str, list[str]] = {}
        for place, given in code:
            if key in given:
                found.setdefault(given[key], []).append(place)
        told = [Said(key, value, f"code: {', '.join(places)}") for value, places in found.items()]
        if not told and key in jobs and jobs[key] != in_catalog.get(key, (usual.get(key, ""), ""))[0]:
            told = [Said(key, jobs[key], "job")]
        if not told and key in in_catalog:
            told = [Said(key, *in_catalog[key])]
        said += told or [Said(key, usual.get(key, ""), DEFAULT)]
    return said


def _of_catalog(entry: Cataloged) -> dict[str, tuple[str, str]]:
    """Return text and place of all that a catalog says of a model."""
    texts = {key: text for key, text in _texts(entry.model).items() if key in entry.given}
    owner = entry.owner
    texts |= {f"owner.{key}": text for key in ("contact", "oncall") if owner and (text := getattr(owner, key))}
    texts |= {f"links.{key}": url for key, url in entry.links.items()}
    if entry.match:
        texts["match"] = ", ".join(f"{one.dag_id}.{one.task_id}" for one in entry.match)
    for key in ("schedule", "timezone", "timeout", "grace", "overlap", "retries", "env_file", "instrument"):
        value = getattr(entry, key)
        if value is not None and value != "":
            texts[key] = _text(value)
    return {key: (text, f"catalog: {entry.file}:{_line(entry, key)}") for key, text in texts.items()}


def _line(entry: Cataloged, key: str) -> int:
    lines = entry.lines
    # Contact and on-call handle may be those that the catalog has for the team.
    return lines.get(key) or lines.get(key.partition(".")[0]) or lines["name"]


def _texts(model: BatchModel) -> dict[str, str]:
    promised = {**model.objectives(), **(model.sla.terms() if model.sla else {})}
    return {
        "name": model.name,
        **{key: str(getattr(model, key)) for key in _FIELDS},
        **{f"{_SLA}{key}": text for key, text in promised.items()},
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | str) else format_duration(value)
