"""A trigger for tests, in a module of its own: Airflow imports it by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class AtOnce(BaseTrigger):
    """Fires as soon as it is asked."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (f"{__name__}.AtOnce", {})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent("now")
