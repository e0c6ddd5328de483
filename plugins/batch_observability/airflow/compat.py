"""
What differs between Airflow versions, or is Airflow's inside: one place to look when a release changes it.

Checked against Airflow 3.3.2 (task SDK 1.3.2). All imports of Airflow sit in the functions.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from batch_observability import config, schema
from batch_observability.guard import log
from batch_observability.ids import TraceParent, derive_trace_id, parse_traceparent
from batch_observability.redact import redact_text

_EXTRA_KEY = "traceparent"
_MAX_LINKS = 100
# The supervisor asks by SIGTERM, which calls `on_kill` only, and then kills (execution_time/supervisor.py:1076).
KILLED_AFTER_S = 5.0
_TIMEOUTS = frozenset({"AirflowTaskTimeout", "AirflowSensorTimeout", "TaskDeferralTimeout"})


def settings(*names: str) -> config.Settings:
    """
    Return our settings, from the environment and airflow.cfg; what is wrong is logged and has its default.

    Args:
        names: of those that are looked up in airflow.cfg; none: all.
    """
    from airflow.sdk.configuration import conf

    prefix = f"AIRFLOW__{config.SECTION.upper()}__"
    # Looking up nine options that nobody has set takes 2 ms of the 15 that the start of a run may take.
    said = conf.has_section(config.SECTION) or any(name.startswith(prefix) for name in os.environ)
    return config.load(
        section=(lambda key: conf.get(config.SECTION, key, fallback=None) if not names or key in names else None)
        if said
        else None,
        on_error=lambda error: log.warning("%s; the default is used", error),
    )


def airflow_tracing() -> bool:
    """Whether Airflow sends spans of its own."""
    from airflow.sdk.configuration import conf

    return bool(conf.getboolean("traces", "otel_on", fallback=False))


def refusal(text: str) -> Exception:
    """Return what a cluster policy raises to refuse a DAG: an import error with this text."""
    from airflow.exceptions import AirflowClusterPolicyViolation

    violation: Exception = AirflowClusterPolicyViolation(text)
    return violation


def redact(text: str) -> str:
    """Mask what Airflow's secrets masker knows, and what looks like a secret."""
    from airflow.sdk.log import redact as mask

    return redact_text(str(mask(text)))


def mask_known(text: str) -> str:
    """Mask what Airflow's secrets masker knows: connections, variables, and what tasks have told it."""
    from airflow.sdk.log import redact as mask

    return str(mask(text))


def known_secrets() -> str:
    """Return a regular expression of what Airflow's secrets masker knows, "" for nothing: for processes without it."""
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    return "|".join(sorted(_secrets_masker().patterns, key=len, reverse=True))


def is_task_process_object(task_instance: object) -> bool:
    """Whether a hook's task instance is that of the process that runs it, and not a row of the database."""
    return type(task_instance).__name__ == "RuntimeTaskInstance"


def state_of(task_instance: Any) -> str:
    """Return Airflow's state of a try; it is final when the end hooks are called."""
    state = task_instance.state
    return str(getattr(state, "value", state))


def exception_of(task_instance: Any) -> BaseException | None:
    """Return what a try failed with."""
    try:
        error = task_instance.get_template_context().get("exception")
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None


def is_timeout(error: object) -> bool:
    """Whether a try failed because its time was over: that of the task, of a sensor or of a deferral."""
    return any(kind.__name__ in _TIMEOUTS for kind in type(error).__mro__)


def on_asked_to_end(task: Any, tell: Callable[[], None]) -> None:
    """Call `tell` when the process is asked to end, before the task's own `on_kill`."""
    on_kill = task.on_kill

    def told() -> None:
        tell()
        on_kill()

    # Past the operator's own attribute hooks, which are for authors of DAGs.
    object.__setattr__(task, "on_kill", told)


def is_scheduler() -> bool:
    """Whether this process is the scheduler, or a child of it."""
    return "scheduler" in sys.argv[1:3] or "standalone" in sys.argv[1:2]


def is_dag_processor() -> bool:
    """Whether this process parses DAG files for all others to know, or is a child of one that does."""
    return "dag-processor" in sys.argv[1:3] or "standalone" in sys.argv[1:2]


def is_resumed(task_instance: Any) -> bool:
    """Whether this process goes on with a try that was deferred or rescheduled."""
    server = task_instance._ti_context_from_server  # noqa: SLF001  (nowhere else to be seen)
    return bool(server and (server.next_method or server.task_reschedule_count))


@dataclass(frozen=True)
class DagRun:
    """
    What a task process knows of its DAG run.

    Attributes:
        run_type: `scheduled`, `manual`, `backfill`, `asset_triggered` and so on.
        run_after: when it was due; of one that was triggered, when that was, or when it was to begin.
        clear_number: how often it was cleared.
        retries_left: whether this try will be followed by another if it fails.
    """

    run_type: str
    run_after: datetime
    clear_number: int
    retries_left: bool


def dag_run(task_instance: Any) -> DagRun | None:
    """Return what is known of the DAG run of a task instance; None if nothing is."""
    server = task_instance._ti_context_from_server  # noqa: SLF001
    if server is None:
        return None
    run = server.dag_run
    kind = str(getattr(run.run_type, "value", run.run_type))
    return DagRun(kind, run.run_after, run.clear_number or 0, bool(server.should_retry))


def in_process(task_instance: Any) -> bool:
    """Whether the task runs in the process that also schedules it: `dag.test()`."""
    return not task_instance.context_carrier


def trace_parent(task_instance: Any) -> TraceParent:
    """
    Return the place in Airflow's trace that a task instance has.

    `dag.test()` gives its task instances no carrier; there the DAG run's is read from the database that this process
    uses anyway. Failing that, the trace id derives from the DAG run, so that its tasks are in one trace.
    """
    carrier = task_instance.context_carrier or {}
    found = parse_traceparent(carrier.get("traceparent")) or _trace_parent_from_database(task_instance)
    if found:
        return found
    trace_id = derive_trace_id(schema.DAG_RUN, task_instance.dag_id, task_instance.run_id)
    return TraceParent(trace_id, 0)


def _trace_parent_from_database(task_instance: Any) -> TraceParent | None:
    if not in_process(task_instance):
        return None
    try:
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        wanted = select(DagRun.context_carrier).where(
            DagRun.dag_id == task_instance.dag_id, DagRun.run_id == task_instance.run_id
        )
        with create_session(scoped=False) as session:
            carrier = session.scalar(wanted) or {}
    except Exception as error:
        log.debug("the DAG run's trace cannot be read: %s", error)
        return None
    return parse_traceparent(carrier.get("traceparent"))


def recording_worker_span() -> int | None:
    """Return the id of Airflow's `worker.<task>` span, if that is current and will be sent."""
    from opentelemetry import trace

    span = trace.get_current_span()
    name = getattr(span, "name", "")
    if not span.is_recording() or not name.startswith("worker."):
        return None
    return int(span.get_span_context().span_id)


def is_sampled(task_instance: Any) -> bool:
    """Whether Airflow's own spans of this DAG run are kept."""
    carrier = task_instance.context_carrier or {}
    return str(carrier.get("traceparent", "-01")).endswith("-01")


def announce_to_consumers(task_instance: Any, traceparent: str) -> None:
    """Put our place in the trace into the asset events that the task will make, for the runs that they trigger."""
    from airflow.sdk import Asset

    for outlet in task_instance.task.outlets or ():
        if isinstance(outlet, Asset):
            events = task_instance.get_template_context()["outlet_events"]
            events[outlet].extra.setdefault(_EXTRA_KEY, traceparent)


def announced_by_producers(task_instance: Any) -> list[TraceParent]:
    """Return the places in their traces of the runs that made the assets that this DAG run consumes."""
    server = task_instance._ti_context_from_server  # noqa: SLF001
    events = server.dag_run.consumed_asset_events if server else ()
    found = (parse_traceparent(event.extra.get(_EXTRA_KEY)) for event in events[:_MAX_LINKS])
    return [place for place in found if place]


def database_url() -> str:
    """Return the URL of Airflow's database, with its password: never to be logged or put on a command line."""
    from airflow import settings as airflow_settings

    return str(airflow_settings.engine.url.render_as_string(hide_password=False))


def host_names() -> list[str]:
    """Return the names by which Airflow knows this host."""
    from airflow.utils.net import get_hostname

    return sorted({get_hostname(), socket.gethostname()})


def is_kubernetes_pod() -> bool:
    """Whether this process's container ends with the task (set by Airflow's KubernetesExecutor)."""
    return os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD", "").lower() == "true"


def register_policy(policy: object) -> None:
    """Make sure that our cluster policy is called, also where no entry point says so (plugins folder)."""
    from airflow.settings import get_policy_plugin_manager

    manager = get_policy_plugin_manager()
    if not manager.is_registered(policy):
        manager.register(policy)


def withdraw_listener(module: str) -> None:
    """Take a listener module from the core's listener manager in this process; that of the task SDK keeps it."""
    from airflow.listeners.listener import get_listener_manager

    manager = get_listener_manager().pm
    for listener in [plugin for plugin in manager.get_plugins() if getattr(plugin, "__name__", "") == module]:
        manager.unregister(listener)


def register_task_decorator(name: str, decorator: Callable[..., Any]) -> None:
    """Make `@task.<name>` work where no entry point says so (plugins folder)."""
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    decorators = ProvidersManagerTaskRuntime().taskflow_decorators
    if name not in decorators:
        # Its values are called when they are first asked for.
        decorators[name] = lambda: decorator
