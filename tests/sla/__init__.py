"""Tests of the objectives of models: when they are due, whether they were kept, and who tells it."""
