"""From conversations to lessons. Read extract.py first."""
