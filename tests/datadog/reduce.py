"""
Makes tests/datadog/openapi/*.json: of Datadog's published description of its API, the operations that are used and all
that they refer to, without words for people.

    pip download --no-deps --no-binary datadog-api-client datadog-api-client==VERSION
    python -m tests.datadog.reduce datadog_api_client-VERSION.tar.gz

The description is in the source distribution of Datadog's client (Copyright 2020-Present Datadog, Inc., Apache-2.0).
"""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import yaml

FOLDER = Path(__file__).with_name("openapi")
PATHS = {
    "v1": (
        "/api/v1/dashboard",
        "/api/v1/dashboard/{dashboard_id}",
        "/api/v1/monitor",
        "/api/v1/monitor/{monitor_id}",
        "/api/v1/slo",
        "/api/v1/slo/{slo_id}",
        "/api/v1/logs/config/pipelines",
        "/api/v1/logs/config/pipelines/{pipeline_id}",
    ),
    "v2": (
        "/api/v2/apm/config/retention-filters",
        "/api/v2/apm/config/retention-filters/{filter_id}",
        "/api/v2/catalog/entity",
        "/api/v2/catalog/entity/{entity_id}",
    ),
}
FOR_PEOPLE = {"description", "example", "examples", "title", "externalDocs", "summary", "tags", "security"}


def reduced(description: dict, paths: tuple[str, ...]) -> dict:
    """Return the paths, and the components that they refer to."""
    found = {"paths": {path: plain(description["paths"][path]) for path in paths}, "components": {}}
    waiting, seen = set(references(found["paths"])), set()
    while waiting:
        reference = waiting.pop()
        seen.add(reference)
        section, name = reference.split("/")[2:]
        component = plain(description["components"][section][name])
        found["components"].setdefault(section, {})[name] = component
        waiting |= set(references(component)) - seen
    return found


def plain(value: object, *, names: bool = False) -> object:
    """Return a part of a description without words for people; where keys are names of properties, all of them."""
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if names or not (key in FOR_PEOPLE or key.startswith("x-"))}
        return {key: plain(one, names=key == "properties") for key, one in kept.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref" and isinstance(one, str):
                yield one
            else:
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def text(description: dict, source: str) -> str:
    """Return it as JSON with a line for each path and component, so that a newer one can be read as a diff."""
    head = {
        "source": source,
        "license": "Apache-2.0, Copyright 2020-Present Datadog, Inc.",
        "changes": "only some operations and what they refer to, without words for people",
    }
    lines = [f'"{name}": {json.dumps(one)}' for name, one in head.items()]
    sections = {"paths": description["paths"], **description["components"]}
    for section, entries in sections.items():
        inner = ",\n".join(
            f" {json.dumps(name)}: {json.dumps(one, sort_keys=True)}" for name, one in sorted(entries.items())
        )
        lines.append(f"{json.dumps(section)}: {{\n{inner}\n}}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(archive: str) -> None:
    with tarfile.open(archive) as opened:
        for version, paths in PATHS.items():
            name = next(one for one in opened.getnames() if one.endswith(f"/.generator/schemas/{version}/openapi.yaml"))
            description = yaml.load(opened.extractfile(name), Loader=yaml.CSafeLoader)
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{version}.json").write_text(text(reduced(description, paths), name), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
