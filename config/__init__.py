"""Configuration: one frozen tree of settings. Read settings.py; default.toml shows every value."""
