"""
THE table of rules: what each looks for, how bad it is, and what to do about it. `docs/lint.md` has the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from batch_observability.lint import demands, jobs, naming, overlap, possible, tags
from batch_observability.lint.findings import Complaint, Finding, Severity, Subject

OfOne = Callable[[Subject], Iterator[Complaint]]
OfAll = Callable[[Sequence[Subject]], Iterator[Complaint]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """
    A rule.

    Attributes:
        id: what it is called, also in comments that silence it.
        severity: how bad it is, unless a complaint says otherwise.
        description: what it finds, in one line.
        remedy: what to do.
        of_one: what it has against one model.
        of_all: what it has against several together.
        is_cheap: it is looked at when Airflow parses a DAG, too.
        is_told: its messages say themselves what to do.
    """

    id: str
    severity: Severity
    description: str
    remedy: str
    of_one: OfOne | None = None
    of_all: OfAll | None = None
    is_cheap: bool = False
    is_told: bool = False

    def finding(self, complaint: Complaint) -> Finding:
        """Return a complaint with all that is shown of it."""
        subject = complaint.subject
        file, line = complaint.place or (subject.place(complaint.key) if subject else ("", 0))
        return Finding(
            rule=self.id,
            severity=complaint.severity or self.severity,
            message=complaint.text,
            file=file,
            line=line,
            model=subject.model.name if subject else "",
            owner=subject.model.owner.strip() if subject else "",
            remedy="" if self.is_told else complaint.remedy or self.remedy,
        )


_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

_TABLE = (
    Rule(
        id="catalog",
        severity=_ERROR,
        description="a catalog is written wrongly: no YAML, an unknown key, a value that cannot be",
        remedy="mend the line as the message says",
        is_told=True,
    ),
    Rule(
        id="dag-file",
        severity=_ERROR,
        description="a DAG file cannot be read as Python; one that is nested too deeply to be looked at: a warning",
        remedy="mend the line: Airflow cannot import the file either",
    ),
    Rule(
        id="model-code",
        severity=_ERROR,
        description="a batch model in code has a field that there is not, or a value that cannot be",
        remedy="mend the field as the message says",
        is_told=True,
    ),
    Rule(
        id="missing-owner",
        severity=_ERROR,
        description="a model has no owner",
        remedy="name the team that answers for it: owner: team-risk",
        of_one=demands.missing_owner,
        is_cheap=True,
    ),
    Rule(
        id="missing-tier",
        severity=_WARNING,
        description="a model does not say how much it matters",
        remedy="write tier: 1 (most) to 3, or a short label",
        of_one=demands.missing_tier,
        is_cheap=True,
    ),
    Rule(
        id="missing-runbook",
        severity=_ERROR,
        description="a model of tier 1 has no runbook; of tier 2: a warning",
        remedy="write runbook: and the URL of what to do when it fails",
        of_one=demands.missing_runbook,
        is_cheap=True,
    ),
    Rule(
        id="missing-objectives",
        severity=_ERROR,
        description="a model of tier 1 promises no end (finish_by or finish_within), or neither success_rate nor "
        "freshness; of tier 2, none of these: a warning",
        remedy="add an objective to its sla",
        of_one=demands.missing_objectives,
        is_cheap=True,
    ),
    Rule(
        id="missing-oncall",
        severity=_ERROR,
        description="the owner of a model of tier 1 has no on-call handle in the catalog",
        remedy="write oncall: @pagerduty-risk beside its team in the catalog",
        of_one=demands.missing_oncall,
        is_cheap=True,
    ),
    Rule(
        id="two-services",
        severity=_ERROR,
        description="one model is in two services at two places",
        remedy="write the same service at both places, or leave out one",
        of_all=naming.two_services,
    ),
    Rule(
        id="similar-names",
        severity=_WARNING,
        description="names of two models differ in case, dashes, dots and the like only",
        remedy="write one of them",
        of_all=naming.similar_names,
    ),
    Rule(
        id="similar-services",
        severity=_WARNING,
        description="two services differ in case, dashes, dots and the like only",
        remedy="write one of them",
        of_all=naming.similar_services,
    ),
    Rule(
        id="similar-owners",
        severity=_WARNING,
        description="two owners differ in case, dashes, dots and the like only",
        remedy="write one of them",
        of_all=naming.similar_owners,
    ),
    Rule(
        id="two-models-one-task",
        severity=_WARNING,
        description="two models match one task; equally closely: an error; where one pattern is within the other, the "
        "closer one counts and nothing is said",
        remedy="make one pattern closer, for example by a whole dag_id, or leave the task out of one",
        of_all=overlap.two_models,
    ),
    Rule(
        id="code-over-catalog",
        severity=_NOTE,
        description="a task that is a model in code is another model by the catalog: the code counts",
        remedy="leave the task out of the pattern, or give both the same name",
        of_all=overlap.in_code_and_catalog,
    ),
    Rule(
        id="bad-schedule",
        severity=_ERROR,
        description="the schedule or time zone of a cron job cannot be, or is one without the other",
        remedy="mend it as the message says",
        is_told=True,
        of_one=jobs.bad_schedule,
    ),
    Rule(
        id="missing-env-file",
        severity=_WARNING,
        description="the env_file of a cron job is not there",
        remedy="name a file that is there, or run this where the job runs",
        of_one=jobs.missing_env_file,
    ),
    Rule(
        id="impossible-objective",
        severity=_ERROR,
        description="an objective that no run can keep: min_duration is not below finish_within, or freshness is less "
        "than from one due time of the job to the next",
        remedy="leave one out, or make it wider",
        of_one=possible.impossible_objective,
    ),
    Rule(
        id="tight-objective",
        severity=_WARNING,
        description="an objective that more than 1 in 20 of the runs in the ledger would have broken",
        remedy="promise what the model keeps, or make it quicker first",
    ),
    Rule(
        id="unbounded-tag",
        severity=_ERROR,
        description="a field that is a metric tag holds a run id, a UUID, a time or a template, or is computed from "
        "such; a date, a commit or a host's address: a warning",
        remedy="write what stays the same from run to run; what a run is of goes into its measurements or log lines",
        of_one=tags.unbounded_tag,
    ),
    Rule(
        id="unbounded-measurement",
        severity=_WARNING,
        description="a run records a measurement under a name that is computed",
        remedy="write the names out, for example in a loop over a tuple of them",
    ),
    Rule(
        id="unbounded-stage",
        severity=_WARNING,
        description="a run has a stage whose name is computed",
        remedy="write the name out; what it is of goes into an event or a log line",
    ),
    Rule(
        id="tag-outside-list",
        severity=_ERROR,
        description="code sends a metric under a name of ours with a tag that is not in the closed list",
        remedy="leave the tag out, or send it under a name of your own",
    ),
    Rule(
        id="computed-name",
        severity=_NOTE,
        description="the name of a model in code is computed, and so cannot be checked",
        remedy="write the name out, if there are few",
        of_one=tags.computed_name,
    ),
    Rule(
        id="custom-metrics",
        severity=_ERROR,
        description="the projected number of Datadog custom metrics is above the budget",
        remedy="fewer versions, stages or measurements, fewer environments, or a greater budget",
    ),
    Rule(
        id="unused-ignore",
        severity=_NOTE,
        description="a comment silences a rule that has nothing to say there, or that there is not",
        remedy="leave the comment out",
    ),
)
RULES = {rule.id: rule for rule in _TABLE}
CHEAP = tuple(rule for rule in _TABLE if rule.is_cheap)


def complaints(subjects: Sequence[Subject]) -> Iterator[Finding]:
    """Yield what all rules have against models."""
    for rule in _TABLE:
        if rule.of_all is not None:
            yield from map(rule.finding, rule.of_all(subjects))
        if rule.of_one is not None:
            for subject in subjects:
                # What the catalog says of a model in code is looked at with that.
                if not subject.is_described:
                    yield from map(rule.finding, rule.of_one(subject))


def mistake(rule_id: str, text: str, file: str = "", line: int = 0, model: str = "") -> Finding:
    """Return a finding of a rule that needs no subject."""
    return replace(RULES[rule_id].finding(Complaint(text=text, place=(file, line))), model=model)
