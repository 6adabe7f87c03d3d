"""Errors of the demo. Imports nothing, so that the command line can import it cheaply."""


class ShopError(Exception):
    """The shop file is invalid; the message says what to change."""


class ServiceDied(Exception):
    """The daemon has exited; the message has the end of its log."""


class DemoFailed(Exception):
    """The loop did not complete; the message says at which stage."""
