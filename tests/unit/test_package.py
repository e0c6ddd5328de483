"""What `import batch_observability` gives."""

from __future__ import annotations

import re

import pytest

import batch_observability


def test_every_public_name_is_there():
    """The mixin, which needs Airflow, has tests with it."""
    assert {"SLA", "BatchModel", "BatchModelMixin", "batch_model", "current_run"} <= set(batch_observability.__all__)
    for name in set(batch_observability.__all__) - {"BatchModelMixin"}:
        assert getattr(batch_observability, name) is not None


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'batch_observability' has no attribute 'manager'"):
        _ = batch_observability.manager


def test_the_version_is_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+", batch_observability.__version__)
