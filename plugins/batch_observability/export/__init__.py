"""Signals to the outside: Datadog, OTLP, or the spool."""
