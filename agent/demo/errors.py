"""What can go wrong in a demo. Imports nothing, so that the command line can name it."""


class ShopError(Exception):
    """The shop file cannot be used; the message says what to change."""


class ServiceDied(Exception):
    """The daemon ended; the message has its last words."""


class DemoFailed(Exception):
    """The loop did not do what it is for; the message says where it ended."""
