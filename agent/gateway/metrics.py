"""What byheart tells Prometheus, at `GET /metrics`.

A registry of its own, so that several gateways in one process (tests) do not meet. Names begin
with `byheart_`; durations are in seconds.
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
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The gateway's counters; each is used where what it counts happens."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "byheart_requests",
            "Chat requests by HTTP status, and by the arm that answered.",
            ["code", "arm"],
            registry=registry,
        )
        self.first_token = Histogram(
            "byheart_first_token_seconds",
            "From a streamed request's arrival to its first token.",
            buckets=SECONDS,
            registry=registry,
        )
        self.duration = Histogram(
            "byheart_request_seconds",
            "From a chat request's arrival to the engine's last byte.",
            buckets=SECONDS,
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "byheart_prompt_tokens", "Prompt tokens the engine counted.", registry=registry
        )
        self.completion_tokens = Counter(
            "byheart_completion_tokens", "Tokens the engine generated.", registry=registry
        )
        self.tokens_saved = Counter(
            "byheart_tokens_saved",
            "Prompt tokens not sent because the adapter has internalised them.",
            registry=registry,
        )
        self.spooled = Counter(
            "byheart_spooled_records",
            "Interactions that went to the spool, not straight to the database.",
            registry=registry,
        )
        self.quarantined = Counter(
            "byheart_quarantined_records",
            "Spooled records that were damaged or that the database refuses.",
            registry=registry,
        )
        self.stale_views = Counter(
            "byheart_stale_views",
            "Requests answered from the last context known, the database being away.",
            registry=registry,
        )
        self.engine_up = Gauge(
            "byheart_engine_up", "Whether the engine answered when last asked.", registry=registry
        )

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Report the records that wait to be written."""
        gauge = Gauge(
            "byheart_recorder_queue",
            "Interactions that wait to be written.",
            registry=self._registry,
        )
        gauge.set_function(waiting)

    def watch_spool(self, batches: Callable[[], int]) -> None:
        """Report the batches in the spool."""
        gauge = Gauge(
            "byheart_spool_batches",
            "Batches in the spool that wait for the database.",
            registry=self._registry,
        )
        gauge.set_function(batches)

    def watch_inflight(self, count: Callable[[], int]) -> None:
        """Report the requests being answered."""
        gauge = Gauge(
            "byheart_inflight_requests", "Chat requests being answered.", registry=self._registry
        )
        gauge.set_function(count)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
