"""Catalogs to render: a few models that differ in all that matters, and hundreds."""

from __future__ import annotations

from batch_observability.catalog import Catalog, Cataloged, Owner
from batch_observability.model import SLA, BatchModel

RISK = Owner(team="team-risk", contact="risk@example.com", oncall="@pagerduty-risk")
SUPPLY = Owner(team="team-supply", contact="https://example.slack.com/archives/supply", oncall="@slack-supply")
_SCHEDULES = ("", "10 3 * * *", "*/5 8-18 * * 1-5", "0 * * * *", "@weekly", "0 6 1 * *")
_SLAS = (
    None,
    SLA(finish_by="06:30 Europe/London", success_rate="99%", min_duration="2m"),
    SLA(start_within="15m", finish_within="1h10m", freshness="26h"),
    SLA(success_rate=1.0, min_rows=1000),
)


def entry(
    name: str, *, owner: Owner | None = RISK, schedule: str = "", links: dict | None = None, **model
) -> Cataloged:
    """One model of a catalog."""
    whose = owner.team if owner else ""
    return Cataloged(
        model=BatchModel(name=name, owner=whose, **model),
        owner=owner,
        schedule=schedule,
        timezone="Europe/London" if schedule else "",
        links=links or {},
        lines={"name": 1},
    )


def catalog(*entries: Cataloged) -> Catalog:
    owners = {one.owner.team: one.owner for one in entries if one.owner}
    return Catalog(models={one.model.name: one for one in entries}, owners=owners)


def hundreds(count: int = 300) -> Catalog:
    """Return models with every mix of owner, tier, schedule and SLA."""
    entries = [
        entry(
            f"model-{number:03}",
            owner=(RISK, SUPPLY, None)[number % 3],
            schedule=_SCHEDULES[number % len(_SCHEDULES)],
            service=f"service-{number // 2:03}",
            tier=(1, 2, 3, "gold")[number // 3 % 4],
            sla=_SLAS[number // 12 % len(_SLAS)],
            description=f"Number {number}: 'quoted' \"text\" & ünïcode",
            runbook=f"https://wiki.example.com/{number}" if number % 5 else "",
        )
        for number in range(count)
    ]
    return catalog(*entries)
