"""The `byheart` command: one module per group of verbs; app.py assembles them."""
