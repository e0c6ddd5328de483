"""
The link from a task's page in Airflow to its trace in Datadog.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import BaseOperatorLink

from batch_observability.guard import guarded
from batch_observability.run import current_run

_SITES_WITH_APP = ("datadoghq.com", "datadoghq.eu", "ddog-gov.com")


def trace_url(trace_id: str) -> str:
    """
    Return the URL of a trace at the Datadog site that `DD_SITE` names.

    Sites: https://docs.datadoghq.com/getting_started/site/ (US1, EU and Gov have an `app.` before them).
    """
    site = os.environ.get("DD_SITE") or "datadoghq.com"
    host = f"app.{site}" if site in _SITES_WITH_APP else site
    return f"https://{host}/apm/trace/{trace_id}"


class TraceLink(BaseOperatorLink):  # type: ignore[misc]  # Airflow's class has no types here
    """Asked for by the process that ran the task, when it ends; Airflow keeps the answer."""

    name = "Trace in Datadog"

    @guarded("")
    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002  (Airflow's signature)
        """Return the URL of the run's trace, "" if the run was not observed."""
        run = current_run()
        return trace_url(run.trace_id) if run.active and run.run_id == str(getattr(ti_key, "id", "")) else ""
