"""
Score the flights of a day: by how many minutes will each one that left arrive late?

One task and one Parquet file for each airport. A scheduled run scores the same day of 2013, for which there are
flights; its configuration may name another: `{"day": "2013-02-09"}` is the blizzard. Declared by a mixin.
"""

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import BaseOperator, Context, Param, dag

from batch_observability import SLA, BatchModel, BatchModelMixin

AIRPORTS = ["EWR", "JFK", "LGA"]

MODEL = BatchModel(
    name="flight-delay-scoring",
    version="1",
    service="flight-delay",
    owner="team-flights",
    tier=2,
    description="Predicts the arrival delay of every flight that leaves New York",
    runbook="https://wiki.example.com/flight-delay",
    sla=SLA(finish_within="5m", min_rows=100, max_rejected_ratio=0.5, success_rate=0.99),
)


class ScoreFlights(BatchModelMixin, BaseOperator):
    """Scores the flights of a day from one airport; returns the path of the Parquet file."""

    model = MODEL

    def __init__(self, *, origin: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.origin = origin

    def execute(self, context: Context) -> str:
        # Imported here, as Airflow parses this file far more often than it runs the task.
        from flight_delay.artifacts import load_model, publish_scores
        from flight_delay.data import parse_day, read_flights, replayed_day
        from flight_delay.model import features, mean_absolute_error, predict
        from flight_delay.scores import check, departed, scores_of

        wanted = context["params"]["day"]
        day = parse_day(wanted) if wanted else replayed_day(context["dag_run"].run_after)
        run = self.batch
        with run.stage("load"):
            regressor = load_model()
            flights = read_flights(day, day, self.origin)
            leaving = departed(flights)
            run.rows(read=len(flights), rejected=len(flights) - len(leaving))
            run.measure("cancelled_share", flights["dep_time"].isna().mean(), unit="fraction")
        with run.stage("features"):
            table = features(leaving)
        with run.stage("score"):
            predicted = predict(regressor, table)
            scores = scores_of(leaving, predicted)
        with run.stage("check"):
            check(scores, expected=len(leaving))
        with run.stage("publish"):
            path = publish_scores(scores, day, self.origin)
            run.rows(written=len(scores))
        # These flights landed long ago. Where the truth comes later, the comparison is a DAG of its own.
        if (mae := mean_absolute_error(predicted, leaving["arr_delay"])) is not None:
            run.measure("mae", mae, unit="minute")
        return str(path)


@dag(
    schedule="@daily",
    start_date=datetime(2013, 2, 1, tzinfo=UTC),
    catchup=False,
    params={"day": Param(None, type=["null", "string"], format="date", description="A day of 2013")},
    tags=["example"],
    doc_md=__doc__,
)
def flight_delay_scoring() -> None:
    ScoreFlights.partial(task_id="score", map_index_template="{{ task.origin }}").expand(origin=AIRPORTS)


flight_delay_scoring()
