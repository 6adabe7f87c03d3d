"""From candidate adapter to live one, and back. Read stages.py first."""
