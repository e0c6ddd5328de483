"""Tests of the observer: what it makes of frames, of silence and of death, in process and with real processes."""
