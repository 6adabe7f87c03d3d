"""Where the logs of every verb go: standard error, so that standard output is the result alone."""

import logging
import sys

import structlog
from structlog.typing import Processor


def configure_logging() -> None:
    """One line for each event on standard error: JSON for machines, plain on a terminal.

    What libraries log is put in the same form, tracebacks too.
    """
    renderer = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    stamped: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    written: list[Processor] = [structlog.processors.format_exc_info, renderer]
    structlog.configure(
        processors=[*stamped, *written],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    handler = logging.StreamHandler(sys.stderr)
    without_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*stamped, structlog.stdlib.add_logger_name],
            processors=[without_meta, *written],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # A tick that is still running when the next is due is no news: it enqueues all the same.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
