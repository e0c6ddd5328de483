"""Tests of the signals on their way out: what arrives, what stays on disk, and where it goes."""
