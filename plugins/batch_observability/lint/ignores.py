"""
Comments that silence a rule on their line, in YAML and in Python: `# batchobs: ignore=missing-runbook`.

A comment that stands alone is about the line below it. One that silences nothing is told, so that none outlives its
reason.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from batch_observability.lint.findings import Finding
from batch_observability.lint.rules import RULES, mistake

_COMMENT = re.compile(r"(?:^|\s)#\s*batchobs:\s*ignore\s*=\s*([\w\-]+(?:\s*,\s*[\w\-]+)*)")


@dataclass
class Ignore:
    """A comment: the line that it is about, the rules that it silences, and those of them that it has silenced."""

    file: str
    line: int
    about: int
    rules: tuple[str, ...]
    used: set[str] = field(default_factory=set)


def ignores_of(path: str) -> list[Ignore]:
    """Return the comments of a file; none if it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    if "batchobs:" not in text:
        return []
    lines = _comments(text) if path.endswith(".py") else enumerate(text.splitlines(), 1)
    found = []
    for number, line in lines:
        if match := _COMMENT.search(line):
            alone = text.splitlines()[number - 1].lstrip().startswith("#")
            rules = tuple(re.split(r"\s*,\s*", match[1]))
            found.append(Ignore(path, number, number + alone, rules))
    return found


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments of a Python file: what stands in a text is none."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
    except (tokenize.TokenError, SyntaxError):
        return


def silence(findings: Iterable[Finding], files: Collection[str], ran: Collection[str]) -> tuple[list[Finding], int]:
    """
    Return findings without those that comments silence, with the comments that silence nothing; and how many they were.

    Args:
        findings: all.
        files: that were read.
        ran: rules that were looked at: a comment about another is no mistake.
    """
    ignores = [one for file in sorted(files) for one in ignores_of(file)]
    by_place: dict[tuple[str, int], list[Ignore]] = {}
    for one in ignores:
        by_place.setdefault((one.file, one.about), []).append(one)
    kept: list[Finding] = []
    silenced = 0
    for finding in findings:
        comments = [one for one in by_place.get((finding.file, finding.line), ()) if finding.rule in one.rules]
        for one in comments:
            one.used.add(finding.rule)
        silenced += bool(comments)
        kept += [] if comments else [finding]
    return [*kept, *_unused(ignores, ran)], silenced


def _unused(ignores: Iterable[Ignore], ran: Collection[str]) -> Iterator[Finding]:
    for one in ignores:
        for rule in one.rules:
            if rule not in RULES:
                yield mistake("unused-ignore", f"{rule!r} is silenced, and there is no such rule", one.file, one.line)
            elif rule in ran and rule not in one.used:
                text = f"{rule!r} is silenced, and has nothing to say here"
                yield mistake("unused-ignore", text, one.file, one.line)
