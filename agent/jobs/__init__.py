"""Background jobs: the schedule that enqueues them, the worker that runs them, and retention."""
