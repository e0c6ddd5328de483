"""Kills what can be killed and switches off what can be switched off, and looks at what is left: `make test-faults`."""
