"""The context as text: its statements, its markup, its examples, its near-duplicates."""
