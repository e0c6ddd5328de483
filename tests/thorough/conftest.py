"""The same clean environment as for the quicker tests of cron jobs."""

from __future__ import annotations

from tests.cron.conftest import _clean_environment

__all__ = ["_clean_environment"]
