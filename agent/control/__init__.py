"""The control API under `/api/v1`: reads and changes what is logged, learned and served."""
