"""The `byheart` command: one module for each group of verbs, put together in app.py."""
