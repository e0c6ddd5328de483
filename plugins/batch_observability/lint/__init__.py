"""The ownership gate: who answers for what, whether it is named well, and what it will cost, checked before it runs."""
