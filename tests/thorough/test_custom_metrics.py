"""The projected number of custom metrics, against what a day of 300 models in five environments really sends."""

from __future__ import annotations

import json

import pytest

from batch_observability import cli
from batch_observability.lint import series
from tests.lint import day


@pytest.mark.timeout(1200)
def test_it_is_within_ten_percent(tmp_path, capsys):
    emitted, by_metric = day.emitted(tmp_path, day.ENVS, 300)
    assert cli.main(["lint", str(tmp_path), "--envs", ",".join(day.ENVS), "--format=json", "--fail-on=never"]) == 0
    projected = json.loads(capsys.readouterr().out)["custom_metrics"]
    print(f"projected {projected['projected']:,}, emitted {emitted:,}: {projected['projected'] / emitted - 1:+.1%}")
    for name, number in by_metric.items():
        print(f"  {name}: projected {projected['by_metric'][name]:,}, emitted {number:,}")
    assert abs(projected["projected"] / emitted - 1) < 0.1
    # With so many runs all happens that is counted.
    silent = {metric.name for metric in series.SILENT}
    assert {name for name, number in by_metric.items() if not number} == silent
