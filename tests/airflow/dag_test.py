"""Runs a DAG that a test has just made, by `dag.test()`."""

from __future__ import annotations

from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.utils.session import create_session

BUNDLE = "tests"


def run(dag):
    """Makes the DAG known to the database, as the DAG processor does, and runs it; returns the DAG run."""
    with create_session() as session:
        session.merge(DagBundleModel(name=BUNDLE))
        session.flush()
        lazy = LazyDeserializedDAG(data=DagSerialization.to_dict(dag))
        SerializedDAG.bulk_write_to_db(BUNDLE, None, [lazy], session=session)
        SerializedDagModel.write_dag(lazy, BUNDLE, session=session)
        assert session.get(DagModel, dag.dag_id)
    return dag.test()
