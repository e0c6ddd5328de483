"""
Provider information: how Airflow learns of `@task.batch_model` and of our section in airflow.cfg.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from batch_observability._version import __version__
from batch_observability.config import SECTION, Settings


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow's provider schema asks for."""
    return {
        "package-name": "airflow-batch-observability",
        "name": "Batch Observability",
        "description": "Traces, structured logs and SLA metrics for batch models.",
        "versions": [__version__],
        "task-decorators": [
            {"name": "batch_model", "class-name": "batch_observability.airflow.decorator.batch_model_task"}
        ],
        "config": {
            SECTION: {
                "description": "Settings of the batch model observer; the environment (`BATCHOBS_*`) goes before them.",
                "options": {
                    f.name: {
                        "description": f"{f.metadata['help']}.",
                        "version_added": __version__,
                        "type": "string",
                        "example": None,
                        "default": None,
                    }
                    for f in fields(Settings)
                },
            }
        },
    }
