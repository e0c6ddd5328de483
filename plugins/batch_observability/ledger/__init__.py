"""The ledger: the SQL database of runs. `records` is what is told to it, `store` keeps it."""
