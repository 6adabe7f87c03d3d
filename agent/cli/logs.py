"""Configures logging to standard error, so that standard output has only results."""

import logging
import sys

import structlog
from structlog.typing import Processor


def configure_logging() -> None:
    """Log one line per event: JSON, or plain text on a terminal.

    Log records of libraries and tracebacks have the same format.
    """
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    enrichers: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers: list[Processor] = [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*enrichers, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*enrichers, structlog.stdlib.add_logger_name],
            processors=[without_meta, *renderers],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # Its warning about overlapping ticks is harmless: the running tick enqueues the same jobs.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
