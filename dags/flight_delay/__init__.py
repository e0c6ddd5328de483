"""
A model of how late a flight from New York will land, as known when it leaves: data, model, scores, files.

Plain functions over data frames. Nothing here knows of Airflow, so all of it runs in a notebook and in a unit
test; the DAG files beside this package say what runs when, and what is observed.
"""
