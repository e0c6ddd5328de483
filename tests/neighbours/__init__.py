"""Tests on a real Airflow: four components, forked tasks, sidecars, Datadog's test agent."""
