"""The control API under `/api/v1`: everything that is recorded, learned and served, over HTTP."""
