"""When a run is due, and the child process that trains it."""
