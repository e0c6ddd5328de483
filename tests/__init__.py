"""Tests of batch_observability, and `tests.live`: the real servers that tests, demo and benchmarks run."""
