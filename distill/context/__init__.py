"""The context as text: its statements, its markup, its examples."""
