"""
Secrets masked in log records: what `redact` finds, what the user's patterns match, and what Airflow's masker knows.

Most lines hold none: a rendered line is looked through for hints, at the cost of a few searches, and masked by its
structure only if it has one. Never as a text, which could break its JSON, or let an escaped quote hide a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from batch_observability import schema
from batch_observability.redact import MASK, hinted, redact, redact_text

# What the user's patterns are for are the user's words: `\d{16}` must not part a line from its trace.
_EXEMPT = frozenset(schema.LOG_FIELDS) - {
    schema.LOG_EVENT, schema.LOG_ERROR_MESSAGE, schema.LOG_ERROR_STACK, schema.LOG_ERROR_CAUSES, schema.LOG_ERROR_NOTES
}  # fmt: skip
# A pattern with one of these may match a value but not the line that the value is written in.
_LOOKS_AROUND = re.compile(r"[\^$]|\\[AZB]|\(\?")


class Masking:
    """
    What is masked in log records.

    Args:
        patterns: regular expressions of the setting `log_redact`.
        known: masks in a text what somebody else knows to be a secret: Airflow's masker.
    """

    def __init__(self, patterns: Iterable[str] = (), known: Callable[[str], str] | None = None) -> None:
        self._patterns = tuple(re.compile(pattern) for pattern in patterns)
        self._looks_around = any(_LOOKS_AROUND.search(pattern.pattern) for pattern in self._patterns)
        self._known = known

    def suspects(self, rendered: str) -> bool:
        """Whether a line, or a part of one, that was rendered as JSON may hold a secret; sometimes yes for none."""
        if hinted(rendered):
            return True
        if self._patterns and (self._looks_around or any(pattern.search(rendered) for pattern in self._patterns)):
            return True
        if self._without_known(rendered) != rendered:
            return True
        # What is escaped, a new line or a quote, may be what a pattern or a known secret has.
        return "\\" in rendered and bool(self._patterns or self._known)

    def line(self, line: str) -> str:
        """Return a line that was rendered as JSON, or any text, with its secrets masked."""
        if not self.suspects(line):
            return line
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return self.text(line)
        if not isinstance(record, dict):
            return self.text(line)
        end = "\n" if line.endswith("\n") else ""
        return json.dumps(self.event(record)) + end

    def event(self, event_dict: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return a new event dict with the secrets of all its fields masked. Never raises.

        What is neither text, number, dict, list nor tuple becomes its masked text.
        """
        masked: dict[str, Any] = redact(dict(event_dict))
        if not self._patterns and self._known is None:
            return masked
        return {
            self._text_masked(name, exempt=False): self._masked(value, exempt=name in _EXEMPT)
            for name, value in masked.items()
        }

    def text(self, text: str) -> str:
        """Return a text with its secrets masked."""
        return self._text_masked(redact_text(text), exempt=False)

    def _masked(self, value: Any, *, exempt: bool) -> Any:
        """`redact` has made it plain: it ends."""
        if isinstance(value, str):
            return self._text_masked(value, exempt=exempt)
        if isinstance(value, dict):
            return {
                self._masked(key, exempt=exempt): self._masked(inner, exempt=exempt) for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            items = [self._masked(inner, exempt=exempt) for inner in value]
            return items if isinstance(value, list) else tuple(items)
        if type(value) in {int, float}:
            # The number of a card.
            shown = self._text_masked(str(value), exempt=exempt)
            return value if shown == str(value) else shown
        return value

    def _text_masked(self, text: str, *, exempt: bool) -> str:
        text = self._without_known(text)
        if not exempt:
            for pattern in self._patterns:
                text = pattern.sub(MASK, text)
        return text

    def _without_known(self, text: str) -> str:
        try:
            return text if self._known is None else str(self._known(text))
        except Exception:
            return MASK
