"""
Score the flights of a day as a cron job, without a scheduler: by how many minutes will each one that left arrive late?

    batchobs run --schedule "10 3 * * *" -- python -m flight_delay.score_day [2013-02-09]

Without a day it scores today's in 2013. Started without `batchobs run` it observes itself; below it, that is a stage.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from batch_observability import SLA, BatchModel, current_run, observe
from batch_observability.logs import get_logger
from flight_delay.artifacts import load_model, publish_scores
from flight_delay.data import parse_day, read_flights, replayed_day
from flight_delay.model import features, mean_absolute_error, predict
from flight_delay.scores import check, departed, scores_of

if TYPE_CHECKING:
    from datetime import date

MODEL = BatchModel(
    name="flight-delay-nightly",
    version="1",
    service="flight-delay",
    owner="team-flights",
    tier=3,
    description="Predicts the arrival delay of every flight that leaves New York, each night",
    sla=SLA(finish_within="5m", min_rows=100),
)

log = get_logger(__name__)


@observe(MODEL)
def score(day: date) -> None:
    """Score and publish the flights of a day, a file for each airport."""
    run = current_run()
    with run.stage("load"):
        regressor = load_model()
        flights = read_flights(day, day)
        leaving = departed(flights)
        run.rows(read=len(flights), rejected=len(flights) - len(leaving))
    with run.stage("score"):
        predicted = predict(regressor, features(leaving))
        scores = scores_of(leaving, predicted)
        check(scores, expected=len(leaving))
    with run.stage("publish"):
        for origin, part in scores.groupby("origin"):
            path = publish_scores(part, day, str(origin))
            run.rows(written=len(part))
            log.info("scores published", origin=origin, flights=len(part), path=str(path))
    if (mae := mean_absolute_error(predicted, leaving["arr_delay"])) is not None:
        run.measure("mae", mae, unit="minute")


if __name__ == "__main__":
    score(parse_day(sys.argv[1]) if len(sys.argv) > 1 else replayed_day(datetime.now(UTC)))
