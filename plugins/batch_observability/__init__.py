"""Batch models made observable."""
