"""The ownership gate."""
