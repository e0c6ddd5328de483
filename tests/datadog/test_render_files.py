"""What is rendered as a whole, and as files: complete, in order, the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter

import pytest
import yaml

from batch_observability.config import ConfigError
from batch_observability.datadog.render import Options, rendered, write
from batch_observability.datadog.resource import Resource, filled, needs_of, reference
from tests.datadog.catalogs import catalog, entry, hundreds

_TEXT = (
    "import hashlib, json; from tests.datadog.catalogs import hundreds; from batch_observability.datadog.render import "
)
_TEXT += "Options, rendered; print(hashlib.sha256(repr(rendered(hundreds(24), Options())).encode()).hexdigest())"


@pytest.fixture(scope="module")
def resources():
    return rendered(hundreds(24), Options(envs=("prod", "staging")))


def contents(folder) -> dict[str, str]:
    return {str(one.relative_to(folder)): one.read_text() for one in folder.rglob("*") if one.is_file()}


def test_three_hundred_models_are_rendered_in_seconds():
    """Measured at the time of writing: 2205 resources, 0.4 s."""
    models = hundreds(300)
    begun = time.monotonic()
    found = rendered(models, Options())
    assert time.monotonic() - begun < 5
    assert len({(one.kind, one.key) for one in found}) == len(found)
    counted = Counter(one.kind for one in found)
    assert (counted["dashboard"], counted["service"]) == (2, 150)
    assert counted["monitor"] > 900


def test_what_is_referred_to_is_there_and_comes_first(resources):
    known = set()
    for one in resources:
        assert set(one.needs) <= known
        assert one.needs == needs_of(one.body)
        known.add(f"{one.kind}:{one.key}")


def test_the_same_catalog_is_rendered_to_the_letter_by_every_process():
    """The order of sets differs from one process to the next."""
    found = {
        subprocess.run(
            [sys.executable, "-c", _TEXT],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_models_that_are_one_to_datadog_are_refused():
    with pytest.raises(ConfigError, match="'Churn' and 'churn'"):
        rendered(catalog(entry("Churn"), entry("churn")), Options())


def test_an_empty_catalog_has_what_is_there_for_all(resources):
    assert [one.kind for one in rendered(catalog(), Options())] == [
        "pipeline",
        "retention_filter",
        "dashboard",
        "dashboard",
        "monitor",
    ]


@pytest.mark.parametrize("form", ["json", "yaml", "terraform"])
def test_files_are_the_same_the_second_time(resources, tmp_path, form):
    first = write(resources, tmp_path, form)
    before = contents(tmp_path)
    assert write(list(reversed(resources)), tmp_path, form) == first
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_each_resource_has_a_file_with_its_body(resources, tmp_path, form, read):
    files = write(resources, tmp_path, form)
    assert len(files) == len(resources)
    one = tmp_path / "monitor" / "model-001" / "page" / f"prod.{form}"
    body = next(found.body for found in resources if found.key == "monitor/model-001/page/prod")
    assert read(one.read_text()) == body


def test_a_message_is_read_in_yaml_as_it_will_be(resources, tmp_path):
    write(resources, tmp_path, "yaml")
    assert "message: |-\n  {{#is_alert}}\n" in (tmp_path / "monitor/model-001/failed/prod.yaml").read_text()


def test_what_is_no_longer_rendered_goes_and_what_is_not_ours_stays(resources, tmp_path):
    write(resources, tmp_path, "json")
    (tmp_path / "monitor" / "README.md").write_text("mine")
    (tmp_path.parent / "outside.json").write_text("mine")
    with (tmp_path / ".batchobs-rendered").open("a") as listing:
        listing.write("../outside.json\n")
    write([one for one in resources if "model-001" not in one.key], tmp_path, "json")
    assert not (tmp_path / "monitor/model-001/page/prod.json").exists()
    assert (tmp_path / "monitor/model-002/page/prod.json").exists()
    assert (tmp_path / "monitor/README.md").exists()
    assert (tmp_path.parent / "outside.json").exists()


@pytest.mark.parametrize("name", ["a/../../b", "..", "a//b", "ünïcode"])
def test_a_key_never_leads_out_of_the_folder(tmp_path, name):
    folder = tmp_path / "inner" / "out"
    write([Resource("monitor", f"monitor/{name}", {})], folder, "json")
    assert not [path for path in tmp_path.rglob("*.json") if folder not in path.parents]
    assert len(list(folder.rglob("*.json"))) == 1


def test_a_form_that_there_is_not_is_told(tmp_path):
    with pytest.raises(ConfigError, match="'xml'"):
        write([], tmp_path, "xml")


# --- Terraform ---------------------------------------------------------------------------------------------------


def test_terraform_finds_all_that_is_referred_to(resources, tmp_path):
    write(resources, tmp_path, "terraform")
    declared, text = set(), ""
    for path in tmp_path.glob("*.tf.json"):
        text += path.read_text()
        for type_name, found in json.loads(path.read_text()).get("resource", {}).items():
            declared |= {f"{type_name}.{label}" for label in found}
    referred = set(re.findall(r"(?<!\$)\$\{([\w.]+)\.id\}", text))
    assert referred
    assert referred <= declared
    assert len(declared) == len(resources)
    assert "{{ref:" not in text


def test_terraform_takes_over_what_has_an_id(resources, tmp_path):
    write(resources, tmp_path, "terraform", {"dashboard:leadership": "abc-def-ghi", "monitor:gone": 1})
    (found,) = json.loads((tmp_path / "import.tf.json").read_text())["import"]
    assert found["id"] == "abc-def-ghi"
    kind, label = found["to"].split(".")
    assert label in json.loads((tmp_path / "dashboard.tf.json").read_text())["resource"][kind]


def test_terraform_does_not_read_a_text_as_its_own(tmp_path):
    write([Resource("monitor", "monitor/x", {"message": "${PATH} %{if} 100%"})], tmp_path, "terraform")
    (found,) = json.loads((tmp_path / "monitor.tf.json").read_text())["resource"]["datadog_monitor_json"].values()
    assert json.loads(found["monitor"])["message"] == "$${PATH} %%{if} 100%"


# --- References --------------------------------------------------------------------------------------------------


def test_a_reference_becomes_an_id():
    body = {
        "query": f"{reference('monitor', 'a')} || {reference('monitor', 'b/c')}",
        "ids": [reference("monitor", "a")],
    }
    assert needs_of(body) == ("monitor:a", "monitor:b/c")
    assert filled(body, {"monitor:a": 1, "monitor:b/c": 2}) == {"query": "1 || 2", "ids": [1]}


def test_a_reference_without_an_id_is_an_error():
    with pytest.raises(KeyError):
        filled(reference("monitor", "a"), {})
