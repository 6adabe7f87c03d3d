"""Where the logs of every verb go: standard error, so that standard output is the result alone."""

import logging
import sys

import structlog


def configure_logging() -> None:
    """One line for each event on standard error: JSON for machines, plain on a terminal."""
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    # A tick that is still running when the next is due is no news: it enqueues all the same.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
