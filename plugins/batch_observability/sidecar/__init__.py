"""The observer: one process for each run, which outlives it and tells how it ended."""
