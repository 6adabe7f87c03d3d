"""`byheart demo`: the whole loop on one machine, measured. Start with loop.py."""
