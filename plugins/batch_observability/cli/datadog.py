"""
`batchobs datadog`: Datadog as code (`datadog_resources.py`), and `agent-config`: what the Agent of this host needs to
tail our logs and to take OTLP.

Sources: https://docs.datadoghq.com/agent/logs/ and https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest_in_the_agent/
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from batch_observability import config
from batch_observability.cli.datadog_resources import add_actions
from batch_observability.cli.options import load_settings
from batch_observability.export.datadog_logs import SOURCE
from batch_observability.export.log_file import RUNS_FILE
from batch_observability.export.target import otlp_endpoint

_CHECK = "conf.d/batch_observability.d/conf.yaml"
_MAIN = "datadog.yaml"
# The Agent's own ports for OTLP; both on this host only.
_RECEIVERS = {"grpc": "127.0.0.1:4317", "http": "127.0.0.1:4318"}
# Airflow's default of [logging] log_filename_template.
_TASK_LOG = (
    "dag_id={{ ti.dag_id }}/run_id={{ ti.run_id }}/task_id={{ ti.task_id }}/"
    "{% if ti.map_index >= 0 %}map_index={{ ti.map_index }}/{% endif %}attempt={{ try_number }}.log"
)


def add_parser(commands: Any) -> None:
    """Add `datadog`; each of its commands sets `run`, which takes the options and returns the exit code."""
    datadog = commands.add_parser("datadog", help="dashboards, monitors and SLOs as code; the Agent's configuration")
    actions = datadog.add_subparsers(dest="action", required=True, metavar="ACTION")
    agent = actions.add_parser(
        "agent-config",
        help="print the Agent's configuration of logs and OTLP for this host",
        description=f"Print {_CHECK}, by which the Agent tails the log files of this host, and the lines of "
        f"{_MAIN} that switch logs and OTLP on. Both are below the Agent's folder, /etc/datadog-agent on Linux.",
    )
    agent.add_argument("--part", choices=("all", "logs", "agent"), default="all", help=f"only {_CHECK} or {_MAIN}")
    agent.set_defaults(run=_agent_config)
    add_actions(actions)


def _agent_config(options: argparse.Namespace) -> int:
    settings = load_settings()
    parts = {"logs": _tailed(settings), "agent": _switches(settings)}
    chosen = list(parts.values()) if options.part == "all" else [parts[options.part]]
    # Two documents of one YAML stream: a program can read them too.
    print("\n---\n".join("\n".join(lines) for lines in chosen))  # noqa: T201  (the command's voice)
    return 0


def _tailed(settings: config.Settings) -> list[str]:
    head = f"# {_CHECK}"
    if settings.ship_logs:
        return [
            head,
            "# BATCHOBS_SHIP_LOGS is on: log lines are sent, and tailed too each would be there twice.",
            "logs: []",
        ]
    runs = settings.state_path / "logs" / RUNS_FILE
    folder = _task_log_folder()
    entries = _entry("How each run began and ended.", runs, SOURCE)
    if otlp_endpoint(os.environ, "LOGS"):
        entries.insert(0, "  # The first file goes by OTLP as well: leave it out here if that reaches Datadog too.")
    for pattern in _task_log_patterns() if folder else ():
        entries += _entry("Airflow's task logs.", f"{folder}/{pattern}", settings.airflow_service)
    readable = " ".join(str(one) for one in (runs.parent, folder) if one)
    return [
        head,
        "# The Agent must be able to read the files, for example by",
        f"#   setfacl -R -m u:dd-agent:rX -m d:u:dd-agent:rX {readable}",
        "logs:",
        *entries,
    ]


def _entry(what: str, path: Path | str, service: str) -> list[str]:
    lines = [
        f"  # {what}",
        "  - type: file",
        f"    path: {_text(path)}",
        f"    service: {_text(service)}",
        f"    source: {SOURCE}",
        "    # Each line is a JSON object, tracebacks included.",
        "    auto_multi_line_detection: false",
    ]
    if env := config.environment():
        lines.append(f"    tags: [{_text(f'env:{env}')}]")
    return lines


def _switches(settings: config.Settings) -> list[str]:
    lines = [
        f"# {_MAIN}: add this, and restart the Agent",
        "logs_enabled: true",
        "logs_config:",
        "  # Each try of a task has a file of its own; of too many, the newest are to be read.",
        "  file_wildcard_selection_mode: by_modification_time",
    ]
    if env := config.environment():
        lines.append(f"env: {_text(env)}")
    lines += ["otlp_config:", "  receiver:", "    protocols:"]
    for protocol, endpoint in _RECEIVERS.items():
        lines += [f"      {protocol}:", f"        endpoint: {_text(endpoint)}"]
    # Off by default in the Agent.
    return [*lines, "  logs:", f"    enabled: {_text(settings.ship_logs)}"]


def _task_log_folder() -> Path | None:
    """Return the folder of Airflow's task logs on this host; None where there is no Airflow."""
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    configured = config.airflow_option("logging", "base_log_folder")
    if configured:
        return Path(os.path.expandvars(configured.replace("{AIRFLOW_HOME}", str(home)))).expanduser()
    return home / "logs" if home.is_dir() else None


def _task_log_patterns() -> list[str]:
    """Return the names of task logs as patterns: with what is there under a condition, and without it."""
    template = (config.airflow_option("logging", "log_filename_template") or _TASK_LOG).replace("%%", "%")
    without = re.sub(r"\{%-?\s*if\b.*?\{%-?\s*endif\s*-?%\}", "", template)
    patterns = (re.sub(r"\{\{.*?\}\}", "*", re.sub(r"\{%.*?%\}", "", text)) for text in (without, template))
    return list(dict.fromkeys(patterns))


def _text(value: object) -> str:
    """Return a value as YAML: what is JSON is YAML too."""
    return json.dumps(value, default=str)
