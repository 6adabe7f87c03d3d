"""The hot path: an OpenAI-compatible endpoint in front of the engine, which logs durably.

Read `app.py` for the routes, then `proxy.py` for what happens to one chat request, and
`recorder.py` for why nothing answered is ever lost.
"""
