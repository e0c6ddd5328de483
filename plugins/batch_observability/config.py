"""
Settings: one typed record each, with environment variable, default and one line of help.

A setting is read from the environment (`BATCHOBS_*`), else from the section `[batch_observability]` of airflow.cfg,
else it has its default. Standard `DD_*` and `OTEL_*` variables keep their standard meaning and are read where they
are used, by ddtrace, the DogStatsD client and the OpenTelemetry SDK.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from batch_observability.urls import HiddenError, base_url, database_url

PREFIX = "BATCHOBS_"
SECTION = "batch_observability"
TARGETS = ("datadog", "otlp", "agentless", "datadog-logs", "spool")


class ConfigError(ValueError):
    """A setting has a value that cannot be used. The message is one line for the user."""


def _boolean(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("write true or false")
    return words[text.lower()]


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError("write a number of seconds, for example 2.5") from None
    if not 0 < value < 86400:
        raise ValueError("write a number of seconds between 0 and 86400, for example 2.5")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("write a whole number, 1 or more")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("write a whole number, 0 or more")
    return int(text)


def _record_bytes(text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 1_000_000:
        raise ValueError("write a number of bytes between 1024 and 1000000")
    return int(text)


def _patterns(text: str) -> tuple[str, ...]:
    patterns = tuple(line.strip() for line in text.splitlines() if line.strip())
    for pattern in patterns:
        try:
            matches_nothing = re.compile(pattern).match("")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        if matches_nothing:
            raise ValueError(f"{pattern!r} matches the empty text, and so every place")
    return patterns


def _targets(text: str) -> tuple[str, ...]:
    chosen = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    if chosen == ("auto",):
        return ()
    for name in chosen:
        if name not in TARGETS:
            raise ValueError(f"{name!r} is no target: write a comma separated list of {', '.join(TARGETS)}, or auto")
    return tuple(dict.fromkeys(chosen))


def _one_of(text: str, *, words: tuple[str, ...]) -> str:
    if text.lower() not in words:
        raise ValueError(f"write {', '.join(words[:-1])} or {words[-1]}")
    return text.lower()


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty: write a value, or unset it")
    return text.strip()


def _paths(text: str) -> str:
    for part in filter(None, text.split(os.pathsep)):
        if not part.startswith(("/", "~")):
            raise ValueError(f"{part!r} is relative, and jobs run in folders of their own: write an absolute path")
    return _text(text)


def _setting(default: Any, parse: Callable[[str], Any], text: str, *, shown: bool = True) -> Any:
    return field(default=default, repr=shown, metadata={"parse": parse, "help": text})


@dataclass(frozen=True)
class Settings:
    """All settings. Field `x_y` is `BATCHOBS_X_Y` in the environment and `x_y` in airflow.cfg."""

    export: tuple[str, ...] = _setting(
        (),
        _targets,
        "where signals go: datadog, otlp, agentless, datadog-logs, spool, comma separated; "
        "auto: what is configured or answers",
    )
    agentless: bool = _setting(
        default=False,
        parse=_boolean,
        text="with DD_API_KEY, and no Agent and no OTLP endpoint, send to Datadog's OTLP intake at DD_SITE",
    )
    agentless_url: str = _setting(
        "",
        base_url,
        "URL of that intake, for a proxy: /v1/traces and the like follow; default: https://otlp.<DD_SITE>",
        shown=False,
    )
    state_dir: str = _setting(
        "", _text, "folder of spool, log and state; default: under AIRFLOW_HOME, or ~/.local/state"
    )
    catalog: str = _setting(
        "", _paths, "batch_models.yaml, or several files and folders, absolute, with : between them; see catalog.md"
    )
    airflow_service: str = _setting("airflow", _text, "service of the DAG-run and task spans")
    dag_run_spans: bool = _setting(
        default=True, parse=_boolean, text="emit DAG-run and task spans where Airflow's own tracing is off"
    )
    wait_at_end: str = _setting(
        "auto",
        partial(_one_of, words=("auto", "always", "never")),
        "wait at the end of a task until all is sent or on disk: auto (in Kubernetes pods), always, never",
    )
    wait_timeout: float = _setting(2.0, _seconds, "seconds that such a wait may last")
    export_timeout: float = _setting(30.0, _seconds, "seconds that one target may take for one run's signals")
    sample_interval: float = _setting(1.0, _seconds, "seconds between two looks at memory and CPU")
    max_stages: int = _setting(1000, _positive, "stages that one run may record; more are counted as dropped")
    retry_for: float = _setting(30.0, _seconds, "seconds that an observer goes on trying to send after a run")
    spool_max_mb: int = _setting(256, _positive, "megabytes that may wait in the spool; the oldest go first")
    spool_max_hours: int = _setting(
        168,
        _positive,
        "hours that signals may wait in the spool; spans and log lines for Datadog wait 18 at most: it takes no older",
    )
    ledger_url: str = _setting(
        "", database_url, "database of runs, as a SQLAlchemy URL; default: SQLite in the state folder", shown=False
    )
    ledger_timeout: float = _setting(20.0, _seconds, "seconds that one change of the ledger may take")
    reconcile_interval: float = _setting(
        60.0, _seconds, "seconds between two comparisons of Airflow's records with the ledger"
    )
    reconcile_after: float = _setting(
        15.0, _seconds, "seconds after its end in Airflow when a run without outcome is closed from its records"
    )
    check_interval: float = _setting(
        20.0, _seconds, "seconds between two looks for promises that are broken while no run is there to tell it"
    )
    deadline_alerts: bool = _setting(
        default=True, parse=_boolean, text="attach Airflow's deadline alerts to DAGs with models that promise a time"
    )
    log_max_bytes: int = _setting(
        262_144, _record_bytes, "bytes that one log line may have; what is longer is cut, visibly"
    )
    log_burst: int = _setting(
        1000, _count, "identical log lines in a minute, below error, before they are collapsed into one; 0: never"
    )
    log_redact: tuple[str, ...] = _setting(
        (), _patterns, "regular expressions, one a line: what they match in a log line is masked"
    )
    ship_logs: bool = _setting(
        default=False,
        parse=_boolean,
        text="send the log lines of runs, not their outcomes only, to OTLP or, with DD_API_KEY, to Datadog's intake",
    )
    capture_max_mb: int = _setting(10, _count, "megabytes that one cron job writes which become log lines; 0: none")
    lint: str = _setting(
        "warn", partial(_one_of, words=("off", "warn", "refuse")), "DAGs whose models nobody answers for: lint.md"
    )
    strict: bool = _setting(default=False, parse=_boolean, text="refuse a finish_by that names no time zone")

    @property
    def ledger(self) -> str:
        """URL of the ledger; it may hold a password."""
        return self.ledger_url or f"sqlite:///{self.state_path / 'ledger.db'}"

    @property
    def state_path(self) -> Path:
        """Folder of spool, log and state."""
        if self.state_dir:
            return Path(self.state_dir).expanduser()
        airflow_home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
        if os.environ.get("AIRFLOW_HOME") or airflow_home.is_dir():
            return airflow_home / "batch_observability"
        return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "batch_observability"

    def as_frame(self) -> dict[str, Any]:
        """As plain values, for the sidecar."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_frame(cls, values: Mapping[str, Any]) -> Settings:
        """As `as_frame` wrote them."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        lists: dict[str, Any] = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        return cls(**{**known, **lists})


def load(
    environ: Mapping[str, str] | None = None,
    section: Callable[[str], str | None] | None = None,
    on_error: Callable[[ConfigError], None] | None = None,
) -> Settings:
    """
    Read all settings.

    Args:
        environ: environment variables; default: those of this process.
        section: looks up a key in airflow.cfg's `[batch_observability]`; None where there is no Airflow.
        on_error: is told what is wrong; the setting then has its default.

    Raises:
        ConfigError: naming the setting, the value and the remedy, without `on_error`.
    """
    environ = os.environ if environ is None else environ
    values = {}
    for f in fields(Settings):
        name, text = PREFIX + f.name.upper(), environ.get(PREFIX + f.name.upper())
        if text is None and section is not None:
            name, text = f"[{SECTION}] {f.name}", section(f.name)
        if text is None:
            continue
        try:
            values[f.name] = f.metadata["parse"](text.strip())
        except ValueError as error:
            shown = "not usable" if isinstance(error, HiddenError) else repr(text)
            problem = ConfigError(f"setting {name} is {shown}: {error}")
            if on_error is None:
                raise problem from None
            on_error(problem)
    return Settings(**values)


def airflow_option(section: str, key: str) -> str | None:
    """Read an option as Airflow does, from its environment variable or airflow.cfg, without importing Airflow."""
    import configparser

    text = os.environ.get(f"AIRFLOW__{section.upper()}__{key.upper()}")
    if text is not None:
        return text
    home = os.environ.get("AIRFLOW_HOME") or "~/airflow"
    path = os.path.expandvars(Path(os.environ.get("AIRFLOW_CONFIG") or Path(home, "airflow.cfg")).expanduser())
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}; mend the file") from None
    return parser.get(section, key, fallback=None)


@cache
def is_strict() -> bool:
    """Return the setting `strict` of this process, from the environment or airflow.cfg; for those who parse models."""
    text = os.environ.get(f"{PREFIX}STRICT")
    if text is None:
        text = airflow_option(SECTION, "strict")
    try:
        return text is not None and _boolean(text.strip())
    except ValueError as error:
        raise ConfigError(f"setting {PREFIX}STRICT is {text!r}: {error}") from None


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Names that look like settings of ours and are none: probably misspelt."""
    known = {PREFIX + f.name.upper() for f in fields(Settings)}
    return sorted(name for name in environ if name.startswith(PREFIX) and name not in known)


def environment() -> str:
    """Return the deployment environment by the standard variables, or ""."""
    if env := os.environ.get("DD_ENV"):
        return env
    parts = (part.partition("=") for part in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in part)
    pairs = {key.strip(): unquote(value.strip()) for key, _, value in parts}
    return pairs.get("deployment.environment.name") or pairs.get("deployment.environment") or ""
