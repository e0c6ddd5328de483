"""
Datadog's published description of its API (tests/datadog/openapi, made by reduce.py), as a judge of requests
and answers.

It is read strictly: a field that the description does not have is a mistake, and so is one in a request that only
answers may have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("openapi")
_CONTENT = "application/json"
_LONGEST = 200
_MANY = 20


@dataclass(frozen=True)
class Operation:
    """One operation: its version, path with placeholders, method, what the description says, and the path's values."""

    version: str
    path: str
    method: str
    said: dict[str, Any]
    values: dict[str, str]


@cache
def described(version: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{version}.json").read_text(encoding="utf-8"))


def operation(method: str, path: str) -> Operation | None:
    """Return the operation of a request; None for one that the description does not have."""
    version = path.split("/")[2] if path.startswith("/api/") else ""
    if version not in ("v1", "v2"):
        return None
    for template, methods in described(version)["paths"].items():
        match = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template), path)
        if match and method.lower() in methods:
            return Operation(version, template, method, methods[method.lower()], match.groupdict())
    return None


def wrong_request(of: Operation, query: dict[str, str], body: Any) -> list[str]:
    """Return what the description has against a request."""
    known = {one["name"]: one["schema"] for one in map(_named(of.version), of.said.get("parameters", ()))}
    wrong = [f"parameter {name!r} is not described" for name in query if name not in known]
    for name, text in {**query, **of.values}.items():
        if name in known and not _is_written_as(text, known[name]):
            wrong.append(f"parameter {name} is {text!r}")
    described_body = of.said.get("requestBody")
    if (body is None) == (described_body is not None):
        return [*wrong, "a body is missing" if described_body else "a body is not described"]
    return [*wrong, *_complaints(of.version, described_body["content"][_CONTENT]["schema"], body)] if body else wrong


def wrong_answer(of: Operation, status: int, body: Any) -> Sequence[str]:
    """Return what the description has against an answer."""
    said = of.said["responses"].get(str(status))
    if said is None:
        return [f"answer {status} is not described"]
    schema = _named(of.version)(said).get("content", {}).get(_CONTENT, {}).get("schema")
    if schema is None:
        return [] if body is None else ["a body of the answer is not described"]
    return _complaints(of.version, schema, body, is_answer=True)


def _named(version: str):
    def resolve(value: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in value:
            return value
        section, name = value["$ref"].split("/")[2:]
        return described(version)[section][name]

    return resolve


def _is_written_as(text: str, schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    if kind == "integer":
        return bool(re.fullmatch(r"\d+", text)) and int(text) <= schema.get("maximum", int(text))
    return text in ("true", "false") if kind == "boolean" else True


# --- Schemas -----------------------------------------------------------------------------------------------------

# All that the description says of values; `format` and `default` are not about what is right.
KEYWORDS = {"$ref", "type", "enum", "oneOf", "nullable", "readOnly", "deprecated", "format", "default"}
KEYWORDS |= {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}
KEYWORDS |= {"items", "minItems", "maxItems", "minLength", "maxLength", "pattern", "minimum", "maximum"}
_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float)}
_SIZES = {"object": "Properties", "array": "Items", "string": "Length"}
# Fields by which one of several schemas is told from the others.
_TELLING = ("type", "data_source")


def _complaints(version: str, schema: dict[str, Any], value: Any, *, is_answer: bool = False) -> tuple[str, ...]:
    # Of a long list the first are looked at: each was, when it was made.
    value = value[:_MANY] if isinstance(value, list) else value
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = {**value, **{key: value[key][:_MANY] for key in ("data", "included") if key in value}}
    return _complaints_of(version, json.dumps(schema), json.dumps(value), is_answer)


@lru_cache(maxsize=4096)
def _complaints_of(version: str, schema: str, value: str, is_answer: bool) -> tuple[str, ...]:
    return tuple(_Judge(version, is_answer).complaints(json.loads(schema), json.loads(value), "body"))


def _told(value: Any) -> dict[str, Any]:
    """Return the fields that say what a value is."""
    return {name: value[name] for name in _TELLING if name in value} if isinstance(value, dict) else {}


class _Judge:
    """Judges values by the schemas of one version, in requests or in answers."""

    def __init__(self, version: str, is_answer: bool) -> None:
        self._schemas = described(version)["schemas"]
        self._is_answer = is_answer

    def complaints(self, schema: dict[str, Any], value: Any, place: str) -> Iterator[str]:
        if value is None and schema.get("nullable"):
            return
        schema = self._resolved(schema)
        kind = schema.get("type")
        if value is None and (schema.get("nullable") or not (kind or "oneOf" in schema)):
            return
        if "oneOf" in schema:
            yield from self._of_several(schema["oneOf"], value, place)
        if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
            yield f"{place}: {value!r:.{_LONGEST}} is no {kind}"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{place}: {value!r} is none of {schema['enum']}"
        yield from self._sizes(schema, kind, value, place)
        if kind == "array":
            for index, one in enumerate(value):
                yield from self.complaints(schema.get("items", {}), one, f"{place}[{index}]")
        if kind == "object":
            yield from self._fields(schema, value, place)

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return schema

    def _sizes(self, schema: dict[str, Any], kind: str | None, value: Any, place: str) -> Iterator[str]:
        if of := _SIZES.get(kind or ""):
            least, most, size = schema.get(f"min{of}", 0), schema.get(f"max{of}", len(value)), len(value)
        elif kind in ("integer", "number"):
            least, most, size = schema.get("minimum", value), schema.get("maximum", value), value
        else:
            return
        if not least <= size <= most:
            yield f"{place}: {size} is not from {least} to {most}"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{place}: {value!r} is not like {schema['pattern']}"

    def _fields(self, schema: dict[str, Any], value: dict[str, Any], place: str) -> Iterator[str]:
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        allowed = {name for name, one in known.items() if self._is_answer or not one.get("readOnly")}
        for name in schema.get("required", ()):
            if name in allowed and name not in value:
                yield f"{place}: {name} is missing"
        for name, one in value.items():
            if name in allowed:
                yield from self.complaints(known[name], one, f"{place}.{name}")
            elif isinstance(other, dict):
                yield from self.complaints(other, one, f"{place}.{name}")
            elif known or other is False:
                yield f"{place}: {name} is not described"

    def _of_several(self, several: list[dict[str, Any]], value: Any, place: str) -> Iterator[str]:
        """Judge by the schemas that may be meant: exactly one must fit."""
        meant = [one for one in several if self._may_be(one, value)]
        found = [list(self.complaints(one, value, place)) for one in meant]
        fitting = sum(not wrong for wrong in found)
        if fitting > 1:
            yield f"{place}: it is {fitting} of {len(several)} that it may be one of"
        if not fitting:
            yield from min(found, key=len, default=[f"{place}: none of {len(several)} has {_told(value)}"])

    def _may_be(self, schema: dict[str, Any], value: Any) -> bool:
        """Return whether a value says by a field that tells that it is of this schema, or says nothing."""
        schema = self._resolved(schema)
        if "oneOf" in schema:
            return any(self._may_be(one, value) for one in schema["oneOf"])
        if not isinstance(value, dict):
            return True
        for name in _TELLING:
            choices = self._resolved(schema.get("properties", {}).get(name, {})).get("enum")
            if choices and name in value and value[name] not in choices:
                return False
        return True
