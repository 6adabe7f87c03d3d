"""The gateway: an OpenAI- and Anthropic-compatible endpoint with a durable log.

Read `app.py` for the routes, `proxy.py` for the steps of one request, and `log/recorder.py` for
why no answered request is ever lost.
"""
