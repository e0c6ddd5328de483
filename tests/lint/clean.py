"""
Catalogs in which nothing is wrong, in the ways in which people write YAML: block and flow, anchors, comments, quotes,
several files, a folder, defaults, owners in place or apart.
"""

from __future__ import annotations

import random
from pathlib import Path

WORDS = ("churn", "demand", "fraud", "pricing", "stock", "uplift", "credit", "delay", "basket", "route")
KINDS = ("score", "train", "features", "export", "report")
TEAMS = ("team-risk", "team-supply", "Growth Team", "ops.batch")
_OF_TIER = {
    "1": "{finish_by: 06:30 Europe/London, success_rate: 99%}",
    "2": "{finish_within: 1h30m}",
    "3": "{min_rows: 10, max_rejected_ratio: 0.1}",
    "gold": "{min_duration: 2m}",
}
_VERSIONS = ("1.10", "2024.1", "v3", "1.2.3", '"7"', "2024-06", "baseline", "1.2.3.4")


def write(folder: Path, seed: int) -> list[Path]:
    """Write a catalog; return the paths that it is named by."""
    chance = random.Random(seed)
    names = [f"{word}-{kind}" for word in WORDS for kind in KINDS]
    chance.shuffle(names)
    count = chance.randint(1, 3)
    files = [folder / f"{'batch_models' if count == 1 else f'part_{number}'}.yaml" for number in range(count)]
    for number, path in enumerate(files):
        some = names[number::count][: chance.randint(3, 12)]
        path.write_text(_file(chance, some, owners=number == 0), encoding="utf-8")
    (folder / "job.env").write_text("A=1\n", encoding="utf-8")
    return files if chance.random() < 0.5 else [folder]


def _file(chance: random.Random, names: list[str], *, owners: bool) -> str:
    text = "# Who answers for what.\n\n" if chance.random() < 0.5 else ""
    if owners:
        text += _owners(chance)
    text += "models:\n"
    anchored = False
    for name in names:
        style = chance.choice(("block", "flow", "anchor", "quoted"))
        if style == "anchor":
            text += _anchored(chance, name, first=not anchored)
            anchored = True
        else:
            text += {"block": _block, "flow": _flow, "quoted": _quoted}[style](chance, name)
        text += "\n" * chance.randrange(2) + ("  # Another.\n" if chance.random() < 0.2 else "")
    return text


def _owners(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return "owners:\n" + "".join(f'  {team}: {{contact: "#{team}", oncall: "@slack-x"}}\n' for team in TEAMS)
    return "owners:\n" + "".join(f"- team: {team}\n  oncall: '@oncall-x'\n" for team in TEAMS)


def _fields(chance: random.Random, name: str) -> dict[str, str]:
    tier = chance.choice(tuple(_OF_TIER))
    fields = {
        "name": name,
        "owner": chance.choice(TEAMS),
        "tier": tier,
        "runbook": f"https://wiki.example.com/{name}#what-to-do",
        "sla": _OF_TIER[tier],
    }
    if chance.random() < 0.5:
        fields["version"] = chance.choice(_VERSIONS)
    if chance.random() < 0.5:
        fields["service"] = name.partition("-")[0]
    if chance.random() < 0.3:
        fields["description"] = "Scores all customers: daily"
    which = chance.random()
    if which < 0.3:
        fields |= {"schedule": "'*/5 8-18 * * 1-5'", "timezone": "Europe/London", "env_file": "job.env"}
    elif which < 0.6:
        # Of the second, the first is an exception.
        fields["match"] = f"[{{dag_id: {name}_daily, task_id: score}}, {{dag_id: '{name}_weekly', task_id: '*'}}]"
    elif which < 0.7:
        fields["match"] = f"{{dag_id: {name}_*}}"
    return fields


def _block(chance: random.Random, name: str) -> str:
    fields = _fields(chance, name)
    fields["description"] = "'it''s: # no comment'"
    lines = [f"{key}: {value}" for key, value in fields.items()]
    if chance.random() < 0.3:
        chance.shuffle(lines)
    return "".join(f"  {'- ' if not at else '  '}{line}\n" for at, line in enumerate(lines))


def _flow(chance: random.Random, name: str) -> str:
    fields = _fields(chance, name)
    fields.pop("description", None)
    return f"  - {{{', '.join(f'{key}: {_in_flow(value)}' for key, value in fields.items())}}}\n"


def _in_flow(value: str) -> str:
    return value if value[0] in "{['\"" else f"'{value}'"


def _quoted(chance: random.Random, name: str) -> str:
    fields = {key: value if value[0] in "{['\"" else f'"{value}"' for key, value in _fields(chance, name).items()}
    return "".join(
        f"  {'- ' if not at else '  '}{key}:   {value}  # {key}\n" for at, (key, value) in enumerate(fields.items())
    )


def _anchored(chance: random.Random, name: str, *, first: bool) -> str:
    common = "&common\n      owner: team-risk\n      tier: 3\n      runbook: https://wiki.example.com/common\n"
    merged = f"    <<: {common}" if first else "    <<: *common\n"
    return f"  - name: {name}\n{merged}"
