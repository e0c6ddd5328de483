"""
Catalogs and DAG files with mistakes planted in them, each with the rule that is to find it, its file and its line.

A mistake is a few lines of a model, with a mark at the end of the line where it is to be found. What is planted is put
among models that are right, so that each has another line.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

MARK = "  # <<"
OWNERS = """\
owners:
  team-risk: {contact: risk@example.com, oncall: "@pagerduty-risk"}
  team-supply:
    contact: "#supply"
    oncall: "@slack-supply"
  team-quiet: {contact: quiet@example.com}
"""
CLEAN = """\
  - name: {name}
    owner: team-risk
    tier: 1
    runbook: https://wiki.example.com/{name}
    sla: {{finish_by: 06:30 Europe/London, success_rate: 99%}}
    match: {{dag_id: {name}, task_id: score}}
"""
IN_CATALOG: dict[str, tuple[str, ...]] = {
    "missing-owner": (
        """
  - name: {name}{mark}
    tier: 3
""",
        """
  - tier: 2
    runbook: https://wiki.example.com/x
    sla: {{success_rate: 99%}}
    name: {name}{mark}
""",
    ),
    "missing-tier": (
        """
  - name: {name}{mark}
    owner: team-risk
""",
    ),
    "missing-runbook": (
        """
  - name: {name}{mark}
    owner: team-risk
    tier: 1
    sla: {{finish_within: 20m, freshness: 26h}}
""",
        """
  - name: {name}{mark}
    owner: team-supply
    tier: 2
    sla: {{finish_within: 20m}}
""",
    ),
    "missing-objectives": (
        """
  - name: {name}
    owner: team-risk
    tier: 1
    runbook: https://wiki.example.com/x
    sla:{mark}
      finish_within: 20m
      min_rows: 5
""",
        """
  - name: {name}
    owner: team-risk
    tier: 1
    runbook: https://wiki.example.com/x
    sla: {{success_rate: 0.99}}{mark}
""",
        """
  - name: {name}{mark}
    owner: team-risk
    tier: 2
    runbook: https://wiki.example.com/x
""",
    ),
    "missing-oncall": (
        """
  - name: {name}
    owner: team-quiet{mark}
    tier: 1
    runbook: https://wiki.example.com/x
    sla: {{finish_within: 20m, freshness: 26h}}
""",
        """
  - name: {name}
    tier: 1
    runbook: https://wiki.example.com/x
    owner:{mark}
      team: team-{name}
      contact: someone@example.com
    sla: {{finish_within: 20m, freshness: 26h}}
""",
    ),
    "bad-schedule": (
        """
  - name: {name}
    owner: team-risk
    tier: 3
    schedule: "10 25 * * *"{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    schedule: "@fortnightly"{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    schedule: "10 3 * * *"
    timezone: Europe/Londn{mark}
""",
        """
  - {{name: {name}, owner: team-risk, tier: 3, schedule: "0 0 30 2 *"}}{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    timezone: Europe/London{mark}
""",
    ),
    "impossible-objective": (
        """
  - name: {name}
    owner: team-risk
    tier: 3
    sla:
      finish_within: 10m
      min_duration: 15m{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    schedule: "@daily"
    sla:
      freshness: 12h{mark}
""",
    ),
    "missing-env-file": (
        """
  - name: {name}
    owner: team-risk
    tier: 3
    schedule: "10 3 * * *"
    env_file: /nowhere/{name}.env{mark}
""",
    ),
    "unbounded-tag": (
        """
  - name: {name}
    version: 2024-06-01{mark}
    owner: team-risk
    tier: 3
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    version: "scheduled__2024-06-01T00:00:00+00:00"{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    service: {name}-6f1c2a34-90ab-4cde-8f01-23456789abcd{mark}
""",
        """
  - name: {name}-20240601{mark}
    owner: team-risk
    tier: 3
""",
        """
  - name: {name}
    owner: team-risk
    version: 3f9c1ab{mark}
    tier: 3
""",
        """
  - name: {name}
    owner: team-risk
    version: "{{{{ds}}}}"{mark}
    tier: 3
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    service: {name}-ip-10-20-30-{number}{mark}
""",
    ),
    "similar-names": (
        CLEAN.replace("{name}", "Twin_{name}")
        + """
  - name: twin-{name}{mark}
    owner: team-risk
    tier: 3
""",
    ),
    "similar-services": (
        """
  - name: one-{name}
    owner: team-risk
    service: Service-{name}
    tier: 3
  - name: other-{name}
    owner: team-risk
    tier: 3
    service: service_{name}{mark}
""",
    ),
    "similar-owners": (
        """
  - name: first-{name}
    owner: team {name}
    tier: 3
  - name: second-{name}
    owner: Team-{name}{mark}
    tier: 3
""",
    ),
    "two-models-one-task": (
        """
  - name: {name}
    owner: team-risk
    tier: 3
    match: {{dag_id: shared-{name}-*, task_id: score}}
  - name: again-{name}
    owner: team-risk
    tier: 3
    match: {{dag_id: shared-{name}-*, task_id: score}}{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    match: {{dag_id: crossed-{name}-*}}
  - name: again-{name}
    owner: team-risk
    tier: 3
    match:{mark}
      - {{dag_id: "crossed-*-end-{name}"}}
""",
    ),
    "catalog": (
        """
  - name: {name}
    ownr: team-risk{mark}
    owner: team-risk
    tier: 3
""",
        """
  - name: {name}
    owner: team-risk
    tier: 0{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    sla:
      finish_by: 25:00{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    sla:
      success_rat: 99%{mark}
""",
        """
  - owner: team-risk{mark}
    tier: 3
""",
        """
  - name: {name}
    owner: team-risk
    owner: team-supply{mark}
    tier: 3
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
    schedule: "10 3 * *"{mark}
""",
        """
  - name: {name}
    owner: team-risk
    tier: 3
  - name: {name}{mark}
    owner: team-risk
    tier: 3
""",
    ),
}


def model(*fields: str, given: tuple[str, ...] = ('name="{name}"', 'owner="team-risk"', "tier=3")) -> str:
    """Return a call with a field a line; a mark stands behind the comma."""
    lines = [f"    {field},".replace("{mark},", ",{mark}") for field in (*given, *fields)]
    return "\n".join(["BatchModel(", *lines, ")"])


TIER_1 = ('name="{name}"', "tier=1", 'runbook="https://wiki.example.com/x"')
IN_CODE: dict[str, tuple[str, ...]] = {
    "missing-owner": ('BatchModel({mark}\n    name="{name}", tier=3)',),
    "missing-tier": ('batch_model(name="{name}", owner="team-risk"){mark}',),
    "missing-runbook": ('M = BatchModel("{name}", owner="team-risk", tier=2, sla=SLA(finish_within="5m")){mark}',),
    "missing-objectives": (model('owner="team-risk"', 'sla=SLA(finish_within="5m"){mark}', given=TIER_1),),
    "missing-oncall": (model('owner="team-quiet"{mark}', 'sla=SLA(finish_within="5m", freshness="1d")', given=TIER_1),),
    "two-services": (model('service="one-{name}"') + "\n" + model('service="other-{name}"{mark}'),),
    "unbounded-tag": (
        model('version=f"{{datetime.now():%Y%m%d}}"{mark}'),
        model("version=str(uuid.uuid4()){mark}"),
        model('version="2024-06-01"{mark}'),
        '@observe("{name}", owner="team-risk", tier=3, service=socket.gethostname()){mark}\ndef work_{number}(): ...',
    ),
    "unbounded-measurement": (
        """
def work_{number}(airports):
    for one in airports:
        current_run().measure(f"mae_{{one}}", 1.0){mark}
""",
    ),
    "unbounded-stage": (
        """
def work_{number}(day):
    with current_run().stage("load " + day):{mark}
        pass
""",
    ),
    "tag-outside-list": (
        """
def work_{number}(run_id):
    statsd.gauge("batch_model.freshness", 1, tags=["env:prod", f"run_id:{{run_id}}"]){mark}
""",
    ),
    "model-code": (
        model('runbok="https://wiki.example.com/x"{mark}'),
        model("tier=0{mark}", given=('name="{name}"', 'owner="team-risk"')),
        model("sla=SLA(\n        finish_by='25:00',{mark}\n    )"),
        'observe("{name}", owner="team-risk", tier=3, sla={{"success_rat": 1}}){mark}',
        'BatchModel(owner="team-risk", tier=3){mark}',
    ),
    "computed-name": (
        'for one in countries():\n    BatchModel(name=f"{name}-{{one}}", owner="team-risk", tier=3){mark}',
    ),
}
HEAD = '''\
"""A DAG file."""

import socket
import uuid
from datetime import datetime

from datadog import statsd

from batch_observability import SLA, BatchModel, batch_model, current_run, observe
from elsewhere import countries
'''


@dataclass(frozen=True)
class Planted:
    """A mistake: the rule that finds it, file and line."""

    rule: str
    file: str
    line: int


def plant(folder: Path, seed: int) -> list[Planted]:
    """Write a folder of catalogs and a DAG file with one of each mistake; return them."""
    chance = random.Random(seed)
    numbers = iter(range(10_000))
    catalogs = [(rule, text) for rule, texts in IN_CATALOG.items() for text in texts]
    chance.shuffle(catalogs)
    half = len(catalogs) // 2
    found = _write(folder / "batch_models.yaml", f"{OWNERS}models:\n", catalogs[:half], chance, numbers)
    found += _write(folder / "batch_models_more.yaml", "# More.\nmodels:\n", catalogs[half:], chance, numbers)
    scripts = [(rule, text) for rule, texts in IN_CODE.items() for text in texts]
    chance.shuffle(scripts)
    return found + _write(folder / "dag.py", HEAD, scripts, chance, numbers)


def _write(path, head, planted, chance, numbers) -> list[Planted]:
    text, found = head, []
    for rule, template in planted:
        if path.suffix != ".py":
            for _ in range(chance.randrange(3)):
                text += CLEAN.format(name=f"clean-{next(numbers)}")
        text += "\n" * chance.randrange(3)
        number = next(numbers)
        text += template.strip("\n").format(name=f"model-{number}", number=number, mark=MARK) + "\n"
        line = next(n for n, one in enumerate(text.splitlines(), 1) if one.endswith(MARK))
        found.append(Planted(rule, str(path), line))
        text = text.replace(MARK, "")
    path.write_text(text, encoding="utf-8")
    return found
