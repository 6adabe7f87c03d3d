"""From candidate adapter to live one, and back. Read rollout.py first."""
