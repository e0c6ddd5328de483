"""The revisions of the ledger's tables, one a file. A revision that was released is never changed."""
