"""Tests of single rooms of the package: values, frames, runs; and of the rules that hold between rooms."""
