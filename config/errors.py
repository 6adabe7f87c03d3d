"""What can be wrong with a configuration."""


class ConfigError(Exception):
    """The configuration cannot be used; the message says which key and what to write instead."""
