"""
All that exists in Datadog because of a catalog, as values and as files to be reviewed.

The same catalog and options give the same text, to the letter: no time, no id, no order of a dictionary by chance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batch_observability.catalog import Catalog
from batch_observability.config import ConfigError
from batch_observability.datadog import terraform
from batch_observability.datadog.engineering import engineering
from batch_observability.datadog.leadership import leadership
from batch_observability.datadog.monitors import monitors_of, telemetry_dropped
from batch_observability.datadog.options import Options
from batch_observability.datadog.pipeline import pipeline
from batch_observability.datadog.queries import tag_value
from batch_observability.datadog.resource import Resource
from batch_observability.datadog.retention import retention_filter
from batch_observability.datadog.services import services_of
from batch_observability.datadog.slos import slos_of

__all__ = ["FORMS", "Options", "rendered", "write"]


def rendered(catalog: Catalog, options: Options) -> list[Resource]:
    """
    Return all resources of a catalog, those first that others refer to.

    Raises:
        ConfigError: if two models are one to Datadog, which knows no capitals.
    """
    entries = [catalog.models[name] for name in sorted(catalog.models)]
    known: dict[str, str] = {}
    for entry in entries:
        name = entry.model.name
        if (other := known.setdefault(tag_value(name), name)) != name:
            raise ConfigError(f"models {other!r} and {name!r} have the same tag in Datadog: rename one")
    per_env = [(entry, env) for entry in entries for env in options.envs]
    return [
        pipeline(),
        retention_filter(),
        leadership(),
        engineering(),
        telemetry_dropped(options),
        *(monitor for entry, env in per_env for monitor in monitors_of(entry, env, options)),
        *(slo for entry, env in per_env for slo in slos_of(entry, env)),
        *services_of(entries, options),
    ]


# --- Files -------------------------------------------------------------------------------------------------------


def write(
    resources: Sequence[Resource], folder: Path, form: str, ids: Mapping[str, str | int] | None = None
) -> list[Path]:
    """
    Write resources to a folder, and remove the files that an earlier call wrote and this one did not.

    Args:
        resources: in any order.
        folder: made if it is not there.
        form: `json` or `yaml`, a file for each resource; `terraform`, a file for each kind.
        ids: those of Datadog that are known, by `kind:key`; Terraform imports them.

    Returns:
        The files, sorted.

    Raises:
        ConfigError: for a form that there is not.
    """
    if form not in FORMS:
        raise ConfigError(f"format {form!r} is none: write one of {', '.join(FORMS)}")
    texts = FORMS[form](resources, ids or {})
    listing = folder / _LISTING
    before = _listed(listing)
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in sorted(before - set(texts)):
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in sorted(texts)), encoding="utf-8")
    return [folder / name for name in sorted(texts)]


# Which files are ours in a folder that may hold others.
_LISTING = ".batchobs-rendered"


def _listed(listing: Path) -> set[str]:
    try:
        names = listing.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    # Nothing outside of the folder is ever removed, whatever the file says.
    return {name for name in names if name and not Path(name).is_absolute() and ".." not in Path(name).parts}


def file_name(resource: Resource, ending: str) -> str:
    """Return the name of a resource's file: `monitor/churn/failed/prod.json`."""
    key = resource.key.removeprefix(f"{resource.kind}/")
    safe = "/".join(re.sub(r"[^\w.\-]", "_", part) or "_" for part in key.split("/"))
    # A part that is only dots would be another folder.
    safe = "/".join(f"_{part}" if set(part) == {"."} else part for part in safe.split("/"))
    return f"{resource.kind}/{safe}.{ending}"


def _as_json(resources: Sequence[Resource], _: Mapping[str, str | int]) -> dict[str, str]:
    return {
        file_name(one, "json"): json.dumps(one.body, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for one in resources
    }


def _as_yaml(resources: Sequence[Resource], _: Mapping[str, str | int]) -> dict[str, str]:
    import yaml

    def text(dumper: Any, value: str) -> Any:
        """Write texts of several lines as such: a message is reviewed as it will be read."""
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    # libyaml's is ten times as fast.
    fastest: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    dumper: Any = type("Dumper", (fastest,), {"ignore_aliases": lambda *_: True})
    dumper.add_representer(str, text)
    return {
        file_name(one, "yaml"): yaml.dump(one.body, Dumper=dumper, sort_keys=True, allow_unicode=True, width=1000)
        for one in resources
    }


FORMS: dict[str, Callable[[Sequence[Resource], Mapping[str, str | int]], dict[str, str]]] = {
    "json": _as_json,
    "yaml": _as_yaml,
    "terraform": terraform.files,
}
