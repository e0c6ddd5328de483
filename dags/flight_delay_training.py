"""
Train the model that predicts how late a flight will land.

Run it once before `flight_delay_scoring`, and again when the model should learn from newer flights. The batch
model is declared by a task decorator: `@task.batch_model` is `@task`, observed.
"""

from datetime import UTC, datetime

from airflow.sdk import Param, dag, task

from batch_observability import SLA, BatchModel, current_run

MODEL = BatchModel(
    name="flight-delay-training",
    version="1",
    service="flight-delay",
    owner="team-flights",
    tier=3,
    description="Learns from past flights how many minutes are lost or made up on the way",
    sla=SLA(finish_within="10m", min_rows=5_000, max_rejected_ratio=0.1),
)


@task.batch_model(model=MODEL)
def train(cutoff: str) -> str:
    # Imported here, as Airflow parses this file far more often than it runs the task.
    from flight_delay.artifacts import publish_model
    from flight_delay.data import FIRST_DAY, parse_day, read_flights
    from flight_delay.model import features, fit, mean_absolute_error, predict, split

    run = current_run()
    with run.stage("load"):
        flights = read_flights(FIRST_DAY, parse_day(cutoff))
        landed = flights.dropna(subset="arr_delay")
        run.rows(read=len(flights), written=len(landed), rejected=len(flights) - len(landed))
    with run.stage("features"):
        past, recent = split(landed)
        past_features, recent_features = features(past), features(recent)
    with run.stage("train"):
        regressor = fit(past_features, past["arr_delay"])
    with run.stage("validate"):
        mae = mean_absolute_error(predict(regressor, recent_features), recent["arr_delay"])
        # What a model has to beat: every flight lands as late as it left.
        baseline = mean_absolute_error(recent["dep_delay"], recent["arr_delay"])
        run.measure("mae", mae, unit="minute")
        run.measure("baseline_mae", baseline, unit="minute")
    with run.stage("publish"):
        rows = {"training_rows": len(past), "validation_rows": len(recent)}
        return str(publish_model(regressor, cutoff=cutoff, **rows, mae=mae, baseline_mae=baseline))


@dag(
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    params={"cutoff": Param("2013-01-31", type="string", format="date", description="Last day to learn from")},
    tags=["example"],
    doc_md=__doc__,
)
def flight_delay_training() -> None:
    train(cutoff="{{ params.cutoff }}")


flight_delay_training()
