"""
THE list of what leaves the system: spans, metrics, tags, log fields and outcomes, with type, unit and meaning.

Emitters, dashboards, documentation and tests read it; a name typed anywhere else is a defect. Renaming or dropping
an entry breaks users' monitors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a run ended."""

    SUCCESS = "success"
    FAILED = "failed"
    RETRYING = "retrying"
    SKIPPED = "skipped"
    TIMED_OUT = "timed_out"
    KILLED = "killed"
    CANCELLED = "cancelled"
    LOST = "lost"


# Outcomes whose run span is an error span.
ERRORS = frozenset(Outcome) - {Outcome.SUCCESS, Outcome.SKIPPED}


class MetricType(StrEnum):
    """How values of one metric are put together."""

    COUNT = "count"
    GAUGE = "gauge"
    DISTRIBUTION = "distribution"


@dataclass(frozen=True)
class Metric:
    """One metric: full name, type, unit ("" if it has none), the tag it has beside `TAGS`, and its meaning."""

    name: str
    type: MetricType
    unit: str
    extra_tag: str
    description: str


@dataclass(frozen=True)
class Field:
    """One attribute of a span or field of a log record."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class SpanKind:
    """One kind of span: its operation name, what its resource is, who emits it and what it hangs under."""

    operation: str
    resource: str
    service: str
    emitted_by: str
    parent: str


METRICS: dict[str, Metric] = {}
ATTRIBUTES: dict[str, Field] = {}
LOG_FIELDS: dict[str, Field] = {}
SPANS: dict[str, SpanKind] = {}


def _metric(name: str, kind: MetricType, unit: str, extra_tag: str, description: str) -> Metric:
    metric = Metric(f"batch_model.{name}", kind, unit, extra_tag, description)
    METRICS[metric.name] = metric
    return metric


def _attribute(name: str, kind: str, description: str) -> str:
    ATTRIBUTES[name] = Field(name, kind, description)
    return name


def _log_field(name: str, kind: str, description: str) -> str:
    LOG_FIELDS[name] = Field(name, kind, description)
    return name


def _span(operation: str, resource: str, service: str, emitted_by: str, parent: str) -> str:
    SPANS[operation] = SpanKind(operation, resource, service, emitted_by, parent)
    return operation


# --- Spans ------------------------------------------------------------------------------------------------------

DAG_RUN = _span("airflow.dag_run", "<dag_id>", "airflow", "scheduler listener, Airflow's own tracing off", "root")
TASK = _span("airflow.task", "<dag_id>.<task_id>", "airflow", "scheduler listener, one per try", "DAG run")
RUN = _span("batch_model.run", "<dag_id>.<task_id> or <job>", "the model's", "the sidecar", "Airflow's task, or ours")
STAGE = _span("batch_model.stage", "<stage>", "the model's", "the sidecar", "run or outer stage")
CHECK = _span("batch_model.check", "doctor", "batchobs-doctor", "batchobs doctor", "root")

SPAN_TYPE = "worker"
RUN_EVENT = "batch model run finished"
START_EVENT = "batch model run started"
AT_RISK_EVENT, BREACHED_EVENT = "batch model objective at risk", "batch model objective breached"
RECOVERED_EVENT, EXTENDED_EVENT = "batch model objective recovered", "batch model objective extended"
MET, BREACHED = "met", "breached"
# Stages that nobody opened: the processes of a run that was deferred or rescheduled, and the time between two of them.
PHASE_STAGE, WAITING_STAGE = "phase", "waiting"

# --- Attributes of spans ----------------------------------------------------------------------------------------

MODEL_NAME = _attribute("batch_model.name", "string", "name of the batch model")
MODEL_VERSION = _attribute("batch_model.version", "string", "version of the model")
MODEL_OWNER = _attribute("batch_model.owner", "string", "the team that answers for it")
MODEL_TIER = _attribute("batch_model.tier", "string", "how much it matters")
RUN_ID = _attribute("batch_model.run_id", "string", "Airflow's task instance id (new on every try) or a UUID")
OUTCOME = _attribute("batch_model.outcome", "string", "how the run ended: one of the outcomes")
STAGE_NAME = _attribute("batch_model.stage", "string", "innermost stage that a run was in when it failed or was killed")
ROWS_READ = _attribute("batch_model.rows.read", "int", "rows read")
ROWS_WRITTEN = _attribute("batch_model.rows.written", "int", "rows written")
ROWS_REJECTED = _attribute("batch_model.rows.rejected", "int", "rows rejected")
MEASUREMENT = _attribute("batch_model.measurement.<name>", "double", "last value of a number that the run recorded")
MEASUREMENT_UNIT = _attribute("batch_model.measurement_unit.<name>", "string", "its unit, if it has one")
OBJECTIVE = _attribute("batch_model.objective.<objective>", "string", "what the SLA promises, for example 20m")
SLA_STATE = _attribute("batch_model.sla.<objective>", "string", "met or breached")
SLA_MARGIN_S = _attribute("batch_model.sla_margin.<objective>", "double", "seconds left at the end; negative is late")
SLA_EXTENDED = _attribute("batch_model.sla.extended", "double", "seconds that the run granted itself by extend_sla")
MEMORY_PEAK = _attribute("batch_model.memory.peak", "int", "bytes, of the process tree")
MEMORY_LIMIT = _attribute("batch_model.memory.limit", "int", "bytes that the control group of the process may have")
WAITING_TIME = _attribute("batch_model.waiting_time", "double", "seconds that a run was deferred or rescheduled")
PHASES = _attribute("batch_model.phases", "int", "processes that a deferred or rescheduled run had one after the other")
CPU_TIME = _attribute("batch_model.cpu.time", "double", "seconds, of the process tree, during the run")
DAG_ID = _attribute("airflow.dag_id", "string", "as Airflow's own spans name it")
TASK_ID = _attribute("airflow.task_id", "string", "as Airflow's own spans name it")
DAG_RUN_ID = _attribute("airflow.dag_run.run_id", "string", "as Airflow's own spans name it")
TRY_NUMBER = _attribute("airflow.task_instance.try_number", "int", "from 1")
MAP_INDEX = _attribute("airflow.task_instance.map_index", "int", "-1 if the task is not mapped")
TASK_STATE = _attribute("airflow.task_instance.state", "string", "Airflow's state of the try")
TASK_INSTANCE_ID = _attribute("airflow.task_instance.id", "string", "Airflow's id of the try")
DAG_RUN_STATE = _attribute("airflow.dag_run.state", "string", "Airflow's state of the DAG run")
DAG_RUN_TYPE = _attribute("airflow.dag_run.run_type", "string", "scheduled, manual, backfill, asset_triggered")
OPERATOR = _attribute("airflow.operator", "string", "class of the operator")
PROCESS_PID = _attribute("process.pid", "int", "process id of the observed process")
HOST_NAME = _attribute("host.name", "string", "host that the run was on")
SIGNAL = _attribute("batch_model.signal", "string", "signal that killed the process, for example SIGKILL")
EXIT_CODE = _attribute("batch_model.exit_code", "int", "exit code of a process that left without a word")
DROPPED = _attribute("batch_model.dropped", "int", "frames that the run had to drop")
ERROR_TYPE = _attribute("error.type", "string", "class of the error")
ERROR_MESSAGE = _attribute("error.message", "string", "its message")
ERROR_STACK = _attribute("error.stack", "string", "its traceback")
ERROR_FINGERPRINT = _attribute("error.fingerprint", "string", "16 hex digits, the same for equal failures")
EVENT_TEXT = _attribute("batch_model.event", "string", "text of an event that the run recorded")

# --- Tags of metrics: a closed list, so that the number of series stays known -------------------------------------

TAG_ENV, TAG_SERVICE, TAG_VERSION = "env", "service", "version"
TAG_MODEL, TAG_OWNER, TAG_TIER, TAG_SOURCE = "model", "owner", "tier", "source"
TAG_DAG_ID, TAG_TASK_ID, TAG_JOB = "dag_id", "task_id", "job"
TAGS = (
    TAG_ENV,
    TAG_SERVICE,
    TAG_VERSION,
    TAG_MODEL,
    TAG_OWNER,
    TAG_TIER,
    TAG_SOURCE,
    TAG_DAG_ID,
    TAG_TASK_ID,
    TAG_JOB,
)
TAG_OUTCOME, TAG_STAGE, TAG_MEASUREMENT = "outcome", "stage", "measurement"
TAG_OBJECTIVE, TAG_SIGNAL, TAG_REASON = "objective", "signal", "reason"

# --- Metrics ----------------------------------------------------------------------------------------------------

_COUNT, _GAUGE, _DISTRIBUTION = MetricType.COUNT, MetricType.GAUGE, MetricType.DISTRIBUTION

RUN_STARTED = _metric("run.started", _COUNT, "run", "", "a run began")
RUN_FINISHED = _metric("run.finished", _COUNT, "run", TAG_OUTCOME, "a run ended")
RUN_DURATION = _metric("run.duration", _DISTRIBUTION, "second", TAG_OUTCOME, "start to end")
RUN_START_DELAY = _metric("run.start_delay", _DISTRIBUTION, "second", "", "due time to start")
STAGE_DURATION = _metric("stage.duration", _DISTRIBUTION, "second", TAG_STAGE, "a stage, start to end")
METRIC_ROWS_READ = _metric("rows.read", _DISTRIBUTION, "row", "", "rows read by a run")
METRIC_ROWS_WRITTEN = _metric("rows.written", _DISTRIBUTION, "row", "", "rows written by a run")
METRIC_ROWS_REJECTED = _metric("rows.rejected", _DISTRIBUTION, "row", "", "rows rejected by a run")
METRIC_MEASUREMENT = _metric(
    "measurement", _DISTRIBUTION, "", TAG_MEASUREMENT, "a number that the run recorded under a declared name"
)
METRIC_MEMORY_PEAK = _metric("memory.peak", _DISTRIBUTION, "byte", "", "of the process tree")
METRIC_CPU_TIME = _metric("cpu.time", _DISTRIBUTION, "second", "", "of the process tree")
SLA_MARGIN = _metric("sla.margin", _GAUGE, "second", TAG_OBJECTIVE, "time left at the end; negative is late")
SLA_CHECKED = _metric("sla.checked", _COUNT, "", TAG_OBJECTIVE, "every judgement")
SLA_BREACHED = _metric("sla.breached", _COUNT, "", TAG_OBJECTIVE, "every breach, once")
SLA_AT_RISK = _metric("sla.at_risk", _COUNT, "", TAG_OBJECTIVE, "a breach is now more likely than not")
FRESHNESS = _metric("freshness", _GAUGE, "second", "", "age of the newest success")
RUN_MISSED = _metric("run.missed", _COUNT, "run", "", "a run was due and never started")
ANOMALY_SCORE = _metric("anomaly.score", _GAUGE, "", TAG_SIGNAL, "surprise of the run, -log10 p")
ANOMALY_DETECTED = _metric("anomaly.detected", _COUNT, "", TAG_SIGNAL, "a run was unusual")
TELEMETRY_DROPPED = _metric(
    "telemetry.dropped", _COUNT, "", TAG_REASON, "what we ourselves had to drop; 0 is the promise"
)

# --- Log records ------------------------------------------------------------------------------------------------

LOG_TIMESTAMP = _log_field("timestamp", "string", "RFC 3339, UTC")
LOG_LEVEL = _log_field("level", "string", "debug, info, warning, error, critical")
LOG_LOGGER = _log_field("logger", "string", "name of the logger")
LOG_EVENT = _log_field("event", "string", "the message")
LOG_TRACE_ID = _log_field("dd.trace_id", "string", "trace, 32 hex digits")
LOG_SPAN_ID = _log_field("dd.span_id", "string", "innermost stage or run, decimal")
LOG_SERVICE = _log_field("dd.service", "string", "service of the model")
LOG_ENV = _log_field("dd.env", "string", "environment, if it is set")
LOG_VERSION = _log_field("dd.version", "string", "version of the model")
LOG_MODEL_NAME = _log_field(MODEL_NAME, "string", "name of the batch model")
LOG_RUN_ID = _log_field(RUN_ID, "string", "the run")
LOG_STAGE = _log_field(STAGE_NAME, "string", "innermost stage, if there is one")
for _name in (DAG_ID, TASK_ID, DAG_RUN_ID, TRY_NUMBER, MAP_INDEX):
    _log_field(_name, ATTRIBUTES[_name].type, ATTRIBUTES[_name].description)
LOG_DD_DAG_ID = _log_field("airflow.dagRun.dag_id", "string", "Datadog's own name for jobs")
LOG_DD_RUN_ID = _log_field("airflow.dagRun.run_id", "string", "Datadog's own name for jobs")
LOG_DD_TASK_ID = _log_field("airflow.task.task_id", "string", "Datadog's own name for jobs")
LOG_ERROR_KIND = _log_field("error.kind", "string", "class of the error")
LOG_ERROR_MESSAGE = _log_field("error.message", "string", "its message")
LOG_ERROR_STACK = _log_field("error.stack", "string", "its traceback")
LOG_ERROR_FINGERPRINT = _log_field(ERROR_FINGERPRINT, "string", ATTRIBUTES[ERROR_FINGERPRINT].description)
LOG_ERROR_CAUSES = _log_field("error.causes", "array", "what caused it, nearest first: kind and message of each")
LOG_ERROR_NOTES = _log_field("error.notes", "array", "notes that were added to it")
LOG_COLLAPSED = _log_field(
    "batch_model.log.collapsed", "boolean", "lines identical to this one are collapsed from now on"
)
LOG_REPEATED = _log_field("batch_model.log.repeated", "int", "lines identical to this one that were collapsed since")
LOG_DURATION = _log_field("batch_model.duration", "double", "seconds, start to end, of a finished run")
LOG_OBJECTIVE = _log_field("batch_model.sla.objective", "string", "objective that a record is about")
LOG_PROMISE = _log_field("batch_model.sla.promise", "string", "what it promises, for example 20m")
LOG_REASON = _log_field("batch_model.sla.reason", "string", "what is known of the cause")
LOG_DUE = _log_field("batch_model.sla.due", "string", "when the run was due: RFC 3339, UTC")
LOG_DEADLINE = _log_field("batch_model.sla.deadline", "string", "when it was to be kept: RFC 3339, UTC")
LOG_STAGES = _log_field("batch_model.stages", "object", "seconds by stage of a finished run")
