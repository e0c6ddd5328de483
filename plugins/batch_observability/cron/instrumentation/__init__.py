"""What `batchobs run --instrument` puts before a job's own path: Python runs its `sitecustomize` when it starts."""
