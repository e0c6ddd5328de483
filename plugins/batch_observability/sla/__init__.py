"""Objectives judged, before, during and after a run: one implementation for sidecar, scheduler and command line."""
