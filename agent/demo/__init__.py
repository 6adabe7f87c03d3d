"""`byheart demo`: the whole loop on one machine, measured. Read loop.py first."""
