"""Tests of the Airflow adapter in one process: `dag.test()`, hooks, policy, correlation, the scheduler's helper."""
