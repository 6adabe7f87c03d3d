"""Training runs: when one is due (plan.py), and the child process that trains it (trainer.py)."""
