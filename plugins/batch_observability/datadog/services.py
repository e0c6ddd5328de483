"""
Service entries of the Software Catalog, version 3: whose a service is, how much it matters, where to look.

A service may have several models: it is of the owner of the one that matters most, the others own it too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from batch_observability import schema
from batch_observability.catalog import Cataloged
from batch_observability.datadog import engineering
from batch_observability.datadog.options import Options
from batch_observability.datadog.queries import Json, link, tag, tag_value, term
from batch_observability.datadog.resource import DASHBOARD, KEY_TAG, MANAGED_BY, SERVICE, Resource, made, reference

# By the host of their pages, among links and contacts: a monitor's handle (`@pagerduty-x`) does not say whose account.
_INTEGRATIONS = {"pagerduty": "pagerduty.com", "opsgenie": "opsgenie.com"}
_URL = re.compile(r"https?://([^/\s]+)\S*")
_MAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
# Datadog's types of contacts.
_MAIL_TYPE, _SLACK_TYPE, _OTHER_TYPE = "email", "slack", "link"
_NO_NUMBER = 10**6


def services_of(entries: Iterable[Cataloged], options: Options) -> list[Resource]:
    """Return the entries of all services, by name."""
    by_service: dict[str, list[Cataloged]] = {}
    for entry in entries:
        by_service.setdefault(tag_value(entry.model.service), []).append(entry)
    return [_service(name, sorted(found, key=_importance), options) for name, found in sorted(by_service.items())]


def _importance(entry: Cataloged) -> tuple[int, str]:
    text = str(entry.model.tier)
    return (int(text) if text.isdecimal() else _NO_NUMBER, entry.model.name)


def _service(name: str, entries: Sequence[Cataloged], options: Options) -> Resource:
    key = f"{SERVICE}/{name}"
    first = entries[0].model
    owners = list(dict.fromkeys(one.model.owner for one in entries if one.model.owner))
    described = [f"{one.model.name}: {one.model.description or 'a batch model'}" for one in entries]
    metadata: Json = {
        "name": name,
        "displayName": first.service,
        "description": "; ".join(described),
        "links": list(_links(entries, options)),
        "contacts": list(_contacts(entries)),
        "tags": [MANAGED_BY, f"{KEY_TAG}:{key}", tag(schema.TAG_TIER, first.tier)],
    }
    if owners:
        metadata["owner"] = owners[0]
        metadata["additionalOwners"] = [{"name": owner, "type": "team"} for owner in owners[1:]]
    body: Json = {
        "apiVersion": "v3",
        "kind": "service",
        "metadata": metadata,
        "spec": {"tier": str(first.tier), "type": "batch"},
        "datadog": {"logs": [_log_search(one) for one in entries]},
        # What Datadog has no field for.
        "extensions": {"batch_observability": {"models": [_model(one) for one in entries]}},
    }
    if found := _integrations(entries):
        body["integrations"] = found
    return made(SERVICE, key, body)


def _links(entries: Sequence[Cataloged], options: Options) -> Iterable[Json]:
    for entry in entries:
        model = entry.model
        if _URL.fullmatch(model.runbook):
            yield {"name": f"Runbook of {model.name}", "type": "runbook", "url": model.runbook}
        for name, url in sorted(entry.links.items()):
            yield {"name": name, "type": "other", "url": url}
        page = f"dashboard/{reference(DASHBOARD, engineering.KEY)}"
        url = link(options.site, page, **{f"tpl_var_{schema.TAG_MODEL}": tag_value(model.name)})
        yield {"name": f"Runs of {model.name}", "type": "dashboard", "url": url}


def _contacts(entries: Sequence[Cataloged]) -> Iterable[Json]:
    seen = set()
    for entry in entries:
        owner = entry.owner
        if owner is None or not owner.contact or owner.contact in seen:
            continue
        seen.add(owner.contact)
        url = _URL.fullmatch(owner.contact)
        kind = _SLACK_TYPE if url and "slack" in url[1] else _OTHER_TYPE
        if _MAIL.fullmatch(owner.contact):
            kind = _MAIL_TYPE
        yield {"name": f"Team {owner.team}", "type": kind, "contact": owner.contact}


def _integrations(entries: Sequence[Cataloged]) -> Json:
    found: Json = {}
    for entry in entries:
        for text in (*entry.links.values(), entry.owner.contact if entry.owner else ""):
            url = _URL.fullmatch(text)
            for name, host in _INTEGRATIONS.items():
                if url and f".{url[1]}".endswith(f".{host}"):
                    found.setdefault(name, {"serviceURL": text})
    return found


def _log_search(entry: Cataloged) -> Json:
    return {"name": f"Logs of {entry.model.name}", "query": term(schema.LOG_MODEL_NAME, entry.model.name)}


def _model(entry: Cataloged) -> Json:
    values = {
        "name": entry.model.name,
        "version": entry.model.version,
        "tier": str(entry.model.tier),
        "objectives": entry.model.objectives(),
        "schedule": entry.schedule,
        "oncall": entry.owner.oncall if entry.owner else "",
    }
    return {name: value for name, value in values.items() if value}
