"""HTTP: connections, request bodies, ASGI events and server-sent events."""
