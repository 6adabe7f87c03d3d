"""Everything byheart remembers. Read models.py first; each other module is one noun's queries.

Query functions take an open `Session` first and never commit: the caller's `with db.begin()` is
the transaction. `sqlalchemy` is imported nowhere but here.
"""
