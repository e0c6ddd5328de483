"""Promises on a real Airflow: models that keep them, and models that break each in its own way."""
