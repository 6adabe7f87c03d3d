"""Bytes of HTTP: connections, bodies, ASGI messages and server-sent events."""
