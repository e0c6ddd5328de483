"""Datadog as code: dashboards, monitors, SLOs, service entries, log pipeline and retention filter, from a catalog."""
