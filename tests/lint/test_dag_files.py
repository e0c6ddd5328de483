"""DAG files are read without being run: models, tasks, stages and measurements, as far as these are written down."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from batch_observability.lint import dag_files
from batch_observability.lint.gate import finish, look
from batch_observability.lint.reading import UNKNOWN, Folder, UnreadableError

DAGS = Path(__file__).parents[2] / "dags"
HEAD = "from batch_observability import *\nfrom airflow.sdk import DAG, BaseOperator, dag, task\n"


@pytest.fixture
def read(tmp_path):
    """Write a DAG file, and others that it may import, and read it."""

    def of(text, **others):
        for name, other in others.items():
            path = tmp_path / f"{name.replace('__', '/', 1)}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(textwrap.dedent(other), encoding="utf-8")
        path = tmp_path / "dag.py"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return dag_files.read(Folder((tmp_path,)).source(path))

    return of


def only(found):
    (one,) = found.declarations
    return one


def values(one):
    return {key: field.value for key, field in one.written.items()}


def test_the_examples_of_this_repository_are_clean():
    read = look([DAGS])
    assert finish(read)[0] == []
    assert {one.model.name: one.tasks for one in read.subjects} == {
        "flight-delay-nightly": (),
        "flight-delay-scoring": (("flight_delay_scoring", "score"),),
        "flight-delay-training": (("flight_delay_training", "train"),),
    }
    (scoring,) = (one for one in read.subjects if one.model.name == "flight-delay-scoring")
    assert scoring.stages == {"load", "features", "score", "check", "publish"}
    assert scoring.measurements == {"cancelled_share", "mae"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("from batch_observability import BatchModel\nBatchModel('churn')", "churn"),
        ("from batch_observability import BatchModel as BM\nBM(name='churn')", "churn"),
        ("import batch_observability as bo\nbo.BatchModel('churn')", "churn"),
        ("import batch_observability.model\nbatch_observability.model.BatchModel('churn')", "churn"),
        ("import batch_observability as bo\nModel = bo.BatchModel\nModel('churn')", "churn"),
        ("from batch_observability import batch_model\n@batch_model(name='churn')\ndef f(): ...", "churn"),
        ("from batch_observability import observe\n@observe('churn')\ndef f(): ...", "churn"),
        ("from batch_observability import observe\nwith observe('churn', tier=1): ...", "churn"),
    ],
)
def test_a_model_is_found_however_it_is_imported(read, text, name):
    assert only(read(text)).name == name


@pytest.mark.parametrize(
    "text",
    [
        "from elsewhere import BatchModel\nBatchModel('churn')",
        "class BatchModel: ...\nBatchModel('churn')",
        "from batch_observability import observe\nobserve(MODEL)",
        "from batch_observability import batch_model\nbatch_model(work, model())",
        "from elsewhere import replace\nreplace(1)",
        "# BatchModel('churn')\n'BatchModel(1)'",
    ],
)
def test_what_is_none_is_not(read, text):
    assert read(text).declarations == []


def test_constants_are_followed_within_a_file_and_between_files(read):
    one = only(
        read(
            """
            from batch_observability import BatchModel, SLA
            from shared.names import TEAM, PREFIX as P
            from shared import tiers
            import shared.names
            HOURS = 2
            NAME = f"{P}-{'score'}"
            BatchModel(
                name=NAME,
                owner=TEAM,
                tier=tiers.HIGH,
                version="1." + str(4),
                service=shared.names.SERVICE,
                sla=SLA(finish_within=timedelta(hours=HOURS), min_rows=10 * 100, success_rate=1 / 2),
            )
            """,
            shared____init__="",
            shared__names="from .teams import RISK as TEAM\nPREFIX = 'churn'\nSERVICE: str = PREFIX + '-service'\n",
            shared__teams="RISK = 'team-risk'\n",
            shared__tiers="HIGH = 1\n",
        )
    )
    assert values(one) == {
        "name": "churn-score",
        "owner": "team-risk",
        "tier": 1,
        "version": UNKNOWN,
        "service": "churn-service",
        "sla": True,
        "sla.finish_within": one.written["sla.finish_within"].value,
        "sla.min_rows": 1000,
        "sla.success_rate": 0.5,
    }
    assert one.model().objectives() == {"finish_within": "2h", "min_rows": "1000", "success_rate": "0.5"}
    assert one.written["owner"].line == 10


@pytest.mark.parametrize(
    "text",
    [
        "import os\nTEAM = os.environ['TEAM']",
        "TEAM = 'a'\nTEAM = 'b'",
        "if True:\n    TEAM = 'a'\nelse:\n    TEAM = 'b'",
        "for TEAM in ('a', 'b'): ...",
        "TEAM = 'a'\nTEAM += 'b'",
        "TEAM, OTHER = 'a', 'b'",
        "with open('x') as TEAM: ...",
        "try:\n    from teams import TEAM\nexcept ImportError:\n    TEAM = 'b'",
        "from nowhere import TEAM",
        "from . import TEAM",
        "from ... import TEAM",
        "TEAM = OTHER\nOTHER = TEAM",
        "TEAM = 'a' * 10",
        "TEAM = ['a'][0]",
        "TEAM = -'a'",
        "TEAM = 'a' - 1",
    ],
)
def test_what_is_computed_is_unknown_and_nothing_is_said_of_it(read, text, tmp_path):
    found = read(f"from batch_observability import BatchModel\n{text}\nBatchModel('churn', owner=TEAM, tier=3)")
    assert values(only(found))["owner"] is UNKNOWN
    assert finish(look([tmp_path]))[0] == []


def test_a_parameter_is_not_the_constant_of_its_name(read):
    found = read("from batch_observability import BatchModel\nN = 'a'\ndef f(N):\n    return BatchModel(N, tier=3)")
    assert only(found).name == "computed"


def test_a_constant_of_a_function_is_its_own(read):
    found = read("from batch_observability import BatchModel\nN = 'a'\ndef f():\n    N = 'b'\n    return BatchModel(N)")
    assert only(found).name == "b"


def test_fields_that_are_unpacked_are_known_if_they_are_written_out(read):
    text = """
    from batch_observability import BatchModel
    COMMON = {"owner": "team-risk", **dict(tier=1)}
    BatchModel("churn", **COMMON, **{"runbook": "https://wiki.example.com"})
    """
    assert values(only(read(text))) == {
        "name": "churn",
        "owner": "team-risk",
        "tier": 1,
        "runbook": "https://wiki.example.com",
    }


@pytest.mark.parametrize("more", ["**common()", "*fields", "**{name(): 1}", "**{**common()}"])
def test_of_a_model_with_computed_fields_nothing_is_missing(read, more, tmp_path):
    one = only(read(f"from batch_observability import BatchModel\nBatchModel(name='churn', {more})"))
    assert one.open or more.startswith("*f")
    assert [f.rule for f in finish(look([tmp_path]))[0]] == ([] if one.open else ["missing-owner", "missing-tier"])


def test_a_model_made_from_another_has_its_fields(read):
    text = """
    from dataclasses import replace
    from batch_observability import BatchModel
    BASE = BatchModel("churn", owner="team-risk", tier=2)
    replace(BASE, name="churn-weekly", tier=3)
    """
    _, other = read(text).declarations
    assert values(other) == {"name": "churn-weekly", "owner": "team-risk", "tier": 3}


def test_an_sla_may_stand_elsewhere(read):
    text = """
    from batch_observability import BatchModel, SLA
    PROMISES = SLA(finish_within="20m", **{"min_rows": 5})
    BatchModel("a", sla=PROMISES)
    BatchModel("b", sla={"finish_within": "5m"})
    BatchModel("c", sla=None)
    BatchModel("d", sla=promises())
    BatchModel("e", sla=SLA(**promises()))
    """
    found = {one.name: one for one in read(text).declarations}
    assert found["a"].model().objectives() == {"finish_within": "20m", "min_rows": "5"}
    assert found["a"].written["sla.finish_within"].line == 4
    assert found["b"].model().objectives() == {"finish_within": "5m"}
    assert found["c"].model().sla is None
    assert found["d"].written["sla"].value is found["e"].written["sla"].value is UNKNOWN


TASKS = {
    "a class attribute": "class S(BatchModelMixin, BaseOperator):\n    model = M\nwith DAG('d'):\n    S(task_id='t')",
    "an inherited one": (
        "class S(BatchModelMixin, BaseOperator):\n    model: BatchModel = M\nclass T(S): ...\n"
        "with DAG('d'):\n    T(task_id='t')"
    ),
    "an argument": "class S(BatchModelMixin): ...\nwith DAG(dag_id='d'):\n    S(task_id='t', model=M)",
    "mapped": "class S(BatchModelMixin):\n    model = M\nwith DAG('d'):\n    S.partial(task_id='t').expand(x=[1])",
    "given a DAG": "class S(BatchModelMixin):\n    model = M\nd = DAG('d')\nDAG('e')\nS(task_id='t', dag=d)",
    "a decorator": "@dag\ndef d():\n    @task.batch_model(model=M)\n    def t(): ...",
    "a decorator with a name": "@dag(dag_id='d')\ndef x():\n    @task.batch_model(M, task_id='t')\n    def y(): ...",
    "under a task": "@dag()\ndef d():\n    @task\n    @batch_model(M)\n    async def t(): ...",
    "around a function": "with DAG('d'):\n    task.batch_model(work, task_id='t', model=M)()",
    "wrapped": "with DAG('d'):\n    PythonOperator(task_id='t', python_callable=batch_model(work, M))",
    "wrapped before": "W = batch_model(work, M)\nwith DAG('d'):\n    PythonOperator(task_id='t', python_callable=W)",
    "outside of the only DAG": "@task.batch_model(model=M)\ndef t(): ...\nwith DAG('d'):\n    t()",
}


@pytest.mark.parametrize("text", TASKS.values(), ids=TASKS)
def test_the_task_of_a_model_is_known(read, text):
    found = read(
        f"{HEAD}from batch_observability import BatchModel, BatchModelMixin, batch_model\nM = BatchModel('m')\n{text}"
    )
    assert found.tasks_of[only(found).key] == [("d", "t")]
    assert ("d", "t") in found.tasks


def test_a_task_of_one_of_several_dags_is_of_an_unknown_one(read):
    text = "from airflow.sdk import DAG\nDAG('a')\nDAG('b')\nOperator(task_id='t')\nOperator(task_id=name())"
    assert read(text).tasks == [("", "t")]


def test_stages_and_measurements_are_known_where_they_are_written(read):
    found = read(
        """
        from batch_observability import current_run
        run = current_run()
        with run.stage("load"): ...
        for name in ("a", "b"):
            run.measure(name, 1)
        for name in names():
            run.measure(name, 1)
        run.measure(name="c", value=1)
        clock.measure("nothing")
        """
    )
    assert [(one.kind, one.name) for one in found.recorded] == [
        ("stage", "load"),
        ("measure", "a"),
        ("measure", "b"),
        ("measure", None),
        ("measure", "c"),
    ]


def test_a_file_that_does_not_use_this_package_records_nothing(read):
    assert read("theatre.stage(name())\nclock.measure(x, 1)").recorded == []


def test_tags_of_metrics_of_ours_are_from_the_closed_list(read):
    found = read(
        """
        from batch_observability import current_run
        statsd.increment("batch_model.run.started", tags=["env:prod", "outcome:success", f"run:{run_id}", host()])
        statsd.increment("mine", tags=["run:1"])
        statsd.increment("batch_model.run.started", tags=tags())
        """
    )
    assert [(one.metric, one.tag, one.line) for one in found.sent] == [("batch_model.run.started", "run", 3)]


@pytest.mark.parametrize(
    ("content", "said", "line"),
    [
        (b"def f(:\n", "it is no Python: invalid syntax", 1),
        (b"x = 1\n  y = 2\n", "it is no Python: unexpected indent", 2),
        (b"x = '\xff'\n", "it is no Python", 1),
        (b"x = 1\0\n", "it is no Python", 1),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path, content, said, line):
    path = tmp_path / "dag.py"
    path.write_bytes(content)
    (one,) = finish(look([path]))[0]
    assert (one.rule, one.file, one.line) == ("dag-file", str(path), line)
    assert one.message.startswith(said)


def test_a_file_that_is_gone_is_told(tmp_path):
    with pytest.raises(UnreadableError, match="it cannot be read: No such file"):
        Folder().source(tmp_path / "dag.py")


def test_a_file_that_is_nested_too_deeply_is_a_warning(tmp_path):
    path = tmp_path / "dag.py"
    path.write_text("from batch_observability import BatchModel\nx = " + " + ".join(["f(1)"] * 3000), encoding="utf-8")
    (one,) = finish(look([path]))[0]
    assert (one.rule, one.severity) == ("dag-file", "warning")


def test_importing_a_file_that_cannot_be_read_is_as_not_to_find_it(read):
    found = read(
        "from broken import TEAM\nfrom batch_observability import BatchModel\nBatchModel(TEAM)", broken="def ("
    )
    assert only(found).name == "computed"


def test_code_of_users_is_never_run(read, tmp_path):
    marker = tmp_path / "ran"
    read(f"open({str(marker)!r}, 'w')\nfrom batch_observability import BatchModel\nBatchModel('churn')")
    assert not marker.exists()
