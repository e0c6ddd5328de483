"""
The reference pages, printed from the code: `python -m batch_observability.reference telemetry|settings`.

A test holds them against the pages in `docs/`, so that neither can go its own way.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields

from batch_observability import schema
from batch_observability.config import PREFIX, SECTION, Settings


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def telemetry() -> str:
    """Return the page of every span, attribute, metric, tag and log field."""
    spans = [(_code(s.operation), _code(s.resource), s.service, s.emitted_by, s.parent) for s in schema.SPANS.values()]
    metrics = [
        (_code(m.name), m.type.value, m.unit, _code(m.extra_tag), m.description) for m in schema.METRICS.values()
    ]
    attributes = [(_code(a.name), a.type, a.description) for a in schema.ATTRIBUTES.values()]
    log_fields = [(_code(f.name), f.type, f.description) for f in schema.LOG_FIELDS.values()]
    return "\n".join(
        [
            "# Telemetry",
            "",
            "What leaves the system. This page is printed from `schema.py`: `python -m batch_observability.reference",
            "telemetry`. Entries whose feature is yet to come are here so that their names are settled.",
            "",
            "## Spans",
            "",
            _table(("operation", "resource", "service", "emitted by", "parent"), spans),
            "",
            f"`{schema.RUN}` has span kind CONSUMER, Datadog type `{schema.SPAN_TYPE}`, `_dd.measured` 1, and is never",
            "sampled out.",
            "",
            "## Attributes of spans",
            "",
            _table(("attribute", "type", "meaning"), attributes),
            "",
            f"Outcomes: {', '.join(_code(o.value) for o in schema.Outcome)}.",
            "",
            "## Metrics",
            "",
            f"Tags, a closed list: {', '.join(map(_code, schema.TAGS))}; and the extra tag of the table.",
            "",
            _table(("metric", "type", "unit", "extra tag", "meaning"), metrics),
            "",
            "## Log records",
            "",
            "One JSON object a line. At the end of every run one record, `event`",
            f"`{schema.RUN_EVENT}`, holds all of the run span's attributes as well.",
            "",
            _table(("field", "type", "meaning"), log_fields),
            "",
        ]
    )


def settings() -> str:
    """Return the page of every setting."""
    rows = []
    for f in fields(Settings):
        default = ",".join(f.default) if isinstance(f.default, tuple) else str(f.default)
        rows.append((_code(PREFIX + f.name.upper()), _code(default), f.metadata["help"]))
    return "\n".join(
        [
            "# Settings",
            "",
            f"Each is an environment variable, or in Airflow the same name without `{PREFIX}`, lower case, in section",
            f"`[{SECTION}]` of airflow.cfg. The environment goes first. Standard `DD_*` and `OTEL_*` variables",
            "keep their standard meaning. A value that cannot be used is named in one log line and has its default.",
            "",
            _table(("variable", "default", "meaning"), rows),
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write({"telemetry": telemetry, "settings": settings}[sys.argv[1]]())
