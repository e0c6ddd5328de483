"""
What a batch model is and what it promises: plain values, validated where they are written.

A mistake is found when the DAG file is parsed, not when the first run is late, and is told in one line that names
the model, the field, the value and what to write instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Self, TypeVar

from batch_observability.objective import PARSERS, TERMS, FinishBy, ModelError, format_duration

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-/]*")
# Compiled when a process starts, and not when its run begins.
_VERSION = re.compile(r"[^\s,|#]+")
_OWNER = re.compile(r"[^\n\r,|]*")
_TIER = re.compile(r"(?!0+$)[A-Za-z0-9][\w.\-]{0,49}")
# Datadog's limits: 100 characters for a service, 200 for a tag with its key.
_MAX_NAME = 100
# Not a field: what is written differently is the same model.
_GIVEN = "_given"
_T = TypeVar("_T")


def _recording(made: _T, values: Mapping[str, Any], count: int) -> _T:
    """Note on a value that is being made which of its fields were written, if not all of them were."""
    said = frozenset(name for name, value in values.items() if not (value is None or value == ""))
    object.__setattr__(made, _GIVEN, said if len(values) < count else None)
    return made


def _given(made: object, otherwise: Iterable[str]) -> frozenset[str]:
    """Return what was noted; for one that was made with all fields, as by `replace`, what is not as it is anyway."""
    said = made.__dict__.get(_GIVEN)
    return said if isinstance(said, frozenset) else frozenset(otherwise)


def as_written(made: _T, given: Iterable[str]) -> _T:
    """Return a value that has just been made, of which these fields were written."""
    object.__setattr__(made, _GIVEN, frozenset(given))
    return made


@dataclass(frozen=True, kw_only=True, init=False)
class SLA:
    """
    What a batch model promises. Every objective is optional; strings are parsed strictly.

    A mistake is told by the `BatchModel` that the SLA is given to, which can say whose it is; and by `objectives()`.

    Attributes:
        start_within: due time to start.
        finish_within: start of the first try to the end of the last.
        finish_by: wall clock with zone and day offset, `06:30 Europe/London` or `+1d 02:00 UTC`, from the due date.
        min_duration: a run that is faster has probably done nothing.
        freshness: greatest age of the newest success.
        min_rows: fewest rows written.
        max_rejected_ratio: rejected rows over rows read, 0 to 1.
        success_rate: successful runs over all runs in `window`, 0 to 1 or a percentage.
        window: what `success_rate` is taken over, default 30 days.
        warn_at: fraction of an objective that may be used up before the run is at risk, default 0.8.
        judge_backfills: objectives that count from the due time hold for backfills too, default no.
        mistake: what is written wrongly, in one line that begins with what is wrong; "" if nothing is.
    """

    start_within: timedelta | str | None
    finish_within: timedelta | str | None
    finish_by: FinishBy | str | None
    min_duration: timedelta | str | None
    freshness: timedelta | str | None
    min_rows: int | str | None
    max_rejected_ratio: float | str | None
    success_rate: float | str | None
    window: timedelta | str
    warn_at: float | str
    judge_backfills: bool | str
    mistake: str = dataclass_field(repr=False)

    def __init__(
        self,
        *,
        start_within: timedelta | str | None = None,
        finish_within: timedelta | str | None = None,
        finish_by: FinishBy | str | None = None,
        min_duration: timedelta | str | None = None,
        freshness: timedelta | str | None = None,
        min_rows: int | str | None = None,
        max_rejected_ratio: float | str | None = None,
        success_rate: float | str | None = None,
        window: timedelta | str = timedelta(days=30),
        warn_at: float | str = 0.8,
        judge_backfills: bool | str = False,
        **unknown: Any,
    ) -> None:
        written = {name: value for name, value in locals().items() if name in PARSERS}
        mistakes = [f"has {name!r}: write {_meant(name)}" for name in sorted(unknown)]
        for name, value in written.items():
            parsed = value
            if value is not None or name in TERMS:
                try:
                    parsed = PARSERS[name](value)
                except ModelError as error:
                    mistakes.append(f"{name!r} is {value!r}: {error}")
            object.__setattr__(self, name, parsed)
        object.__setattr__(self, "mistake", mistakes[0] if mistakes else "")

    def __new__(cls, **values: Any) -> Self:
        return _recording(super().__new__(cls), values, len(PARSERS))

    @property
    def given(self) -> frozenset[str]:
        """The objectives and terms that were written."""
        usual = {"window": timedelta(days=30), "warn_at": 0.8, "judge_backfills": False}
        given = _given(self, (name for name in PARSERS if getattr(self, name) != usual.get(name)))
        return given.intersection(PARSERS)

    def check(self, model: str = "") -> None:
        """Raise `ModelError` if something is written wrongly, naming the model."""
        if self.mistake:
            whose = f" of model {model!r}" if model else ""
            what, _, rest = self.mistake.partition(" ")
            raise ModelError(f"SLA{whose} {what} {rest}" if what == "has" else f"SLA {what}{whose} {rest}")

    def objectives(self) -> dict[str, str]:
        """
        Name and promise of each objective that is set, as text: `{"finish_within": "20m"}`.

        Raises:
            ModelError: naming the objective, the value and the remedy, if something is written wrongly.
        """
        self.check()
        return {name: text for name, text in self._as_text().items() if name not in TERMS}

    def terms(self) -> dict[str, str]:
        """How the objectives are judged, as text: with `objectives()` these make an equal SLA."""
        return {name: text for name, text in self._as_text().items() if name in TERMS}

    def _as_text(self) -> dict[str, str]:
        values = {name: getattr(self, name) for name in PARSERS}
        return {
            name: format_duration(value) if isinstance(value, timedelta) else str(value)
            for name, value in values.items()
            if value is not None
        }


def _meant(name: str) -> str:
    close = get_close_matches(name, PARSERS, n=1)
    return repr(close[0]) if close else f"one of {', '.join(PARSERS)}"


@dataclass(frozen=True)
class BatchModel:
    """
    A batch model: what it is called, who answers for it, and what it promises.

    Attributes:
        name: letters, digits and `_ . - /`; the same in every environment.
        version: of the model, not of a run: no date, no run id (each value makes new metric series).
        service: Datadog service or OpenTelemetry `service.name`; default: the name.
        owner: the team that answers for it; a model may be declared before it has one.
        tier: how much it matters; a number from 1 (most) or a short label.
        sla: what it promises; a mapping is read as `SLA(**mapping)`.
        description: one line.
        runbook: URL of what to do when it fails.

    Raises:
        ModelError: naming the model, the field, the value and the remedy.
    """

    name: str
    version: str = "0"
    service: str = ""
    owner: str = ""
    tier: int | str = 3
    sla: SLA | None = None
    description: str = ""
    runbook: str = ""

    def __new__(cls, *values: Any, **named: Any) -> Self:
        fields = cls.__match_args__
        return _recording(super().__new__(cls), dict(zip(fields, values, strict=False)) | named, len(fields))

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or len(self.name) > _MAX_NAME:
            raise ModelError(
                f"batch model name is {self.name!r}: write up to {_MAX_NAME} letters, digits and _ . - /, "
                "for example churn-score"
            )
        self._set("service", self.service or self.name)
        self._check("service", _NAME, "write up to 100 letters, digits and _ . - /, for example churn")
        if isinstance(self.version, int | float) and not isinstance(self.version, bool) and math.isfinite(self.version):
            self._set("version", str(self.version))
        self._check(
            "version",
            _VERSION,
            "write a version without spaces, up to 100 characters, for example '1.4'",
        )
        remedy = "name the team that answers for it in up to 100 characters, for example 'team-risk'"
        self._check("owner", _OWNER, remedy)
        label = str(self.tier) if isinstance(self.tier, int | str) and not isinstance(self.tier, bool) else ""
        if not _TIER.fullmatch(label):
            raise self._error("tier", "write a number from 1 or a short label, for example 1")
        if isinstance(self.sla, Mapping):
            self._set("sla", SLA(**{str(name): value for name, value in self.sla.items()}))
        if self.sla is not None:
            if not isinstance(self.sla, SLA):
                raise self._error("sla", "write SLA(finish_within='20m')")
            self.sla.check(self.name)
        for field in ("description", "runbook"):
            if not isinstance(getattr(self, field), str):
                raise self._error(field, "write text")

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)

    def _error(self, field: str, remedy: str) -> ModelError:
        return ModelError(f"{field} of batch model {self.name!r} is {getattr(self, field)!r}: {remedy}")

    def _check(self, field: str, pattern: re.Pattern[str], remedy: str) -> None:
        value = getattr(self, field)
        if not isinstance(value, str) or not pattern.fullmatch(value) or len(value) > _MAX_NAME:
            raise self._error(field, remedy)

    @property
    def given(self) -> frozenset[str]:
        """
        The fields that were written, of the SLA `sla.finish_by`: over these a catalog has no say.

        A model that is made with all of its fields, as by `dataclasses.replace`, has written those that are not as they
        would have been anyway.
        """
        usual = {
            "version": "0",
            "tier": 3,
            "service": self.name,
            "sla": None,
            "owner": "",
            "description": "",
            "runbook": "",
        }
        given = _given(self, {name for name in self.__match_args__ if getattr(self, name) != usual.get(name)})
        return given - {"sla"} | {f"sla.{name}" for name in (self.sla.given if self.sla else ())}

    def objectives(self) -> dict[str, str]:
        """Name and promise of each objective of the SLA, as text."""
        return self.sla.objectives() if self.sla else {}

    def as_text(self) -> dict[str, Any]:
        """Return the model as runs carry it."""
        return {
            "name": self.name,
            "version": self.version,
            "service": self.service,
            "owner": self.owner,
            "tier": str(self.tier),
            "runbook": self.runbook,
            "objectives": self.objectives(),
            "terms": self.sla.terms() if self.sla else {},
        }
