"""Turns feedback on conversations into lessons. Start with extract.py."""
