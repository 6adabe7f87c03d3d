"""Tables and queries of the database. Start with models.py.

Each other module has the queries for one kind of object. Query functions take an open `Session` as
their first argument and never commit: the caller's `with db.begin()` block is the transaction. No
other package imports `sqlalchemy`.
"""
