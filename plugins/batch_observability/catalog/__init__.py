"""`batch_models.yaml`: models, who answers for them, which tasks they are, and how their cron jobs run."""

from batch_observability.catalog.reading import load, read
from batch_observability.catalog.values import OVERLAPS, Catalog, Cataloged, CatalogError, Match, Mistake, Owner

__all__ = ["OVERLAPS", "Catalog", "CatalogError", "Cataloged", "Match", "Mistake", "Owner", "load", "read"]
