"""The Prometheus metrics at `GET /metrics`.

Each gateway has its own registry, so that several in one process (in tests) stay separate. Names
begin with `byheart_`; durations are in seconds.
"""

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
DURATION_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The gateway's metrics, updated by the code that they measure."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "byheart_requests",
            "Requests to the model, by HTTP status and by arm.",
            ["code", "arm"],
            registry=registry,
        )
        self.first_token = Histogram(
            "byheart_first_token_seconds",
            "Time from the arrival of a streamed request to its first token.",
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.duration = Histogram(
            "byheart_request_seconds",
            "Time from the arrival of a request to the model to the engine's last byte.",
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "byheart_prompt_tokens", "Prompt tokens, as counted by the engine.", registry=registry
        )
        self.completion_tokens = Counter(
            "byheart_completion_tokens", "Tokens that the engine generated.", registry=registry
        )
        self.tokens_saved = Counter(
            "byheart_tokens_saved",
            "Prompt tokens omitted because the adapter has internalised them.",
            registry=registry,
        )
        self.spooled = Counter(
            "byheart_spooled_records",
            "Interactions written to the spool instead of the database.",
            registry=registry,
        )
        self.quarantined = Counter(
            "byheart_quarantined_records",
            "Spooled records that are corrupt or that the database rejects.",
            registry=registry,
        )
        self.stale_views = Counter(
            "byheart_stale_views",
            "Requests composed from the last known context while the database was unavailable.",
            registry=registry,
        )
        self.engine_up = Gauge(
            "byheart_engine_up",
            "1 if the engine answered the last request to it, else 0.",
            registry=registry,
        )

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Report the number of records that wait to be written."""
        gauge = Gauge(
            "byheart_recorder_queue",
            "Interactions waiting to be written.",
            registry=self._registry,
        )
        gauge.set_function(waiting)

    def watch_spool(self, batches: Callable[[], int]) -> None:
        """Report the number of batches in the spool."""
        gauge = Gauge(
            "byheart_spool_batches",
            "Batches in the spool, waiting for the database.",
            registry=self._registry,
        )
        gauge.set_function(batches)

    def watch_inflight(self, count: Callable[[], int]) -> None:
        """Report the number of requests in progress."""
        gauge = Gauge(
            "byheart_inflight_requests",
            "Requests to the model in progress.",
            registry=self._registry,
        )
        gauge.set_function(count)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
