"""Background work: what is due, who runs it, and what is deleted when its time is over."""
