"""The engine: our client and supervisor of vLLM. Read client.py first, then supervisor.py.

`launch.py` has vLLM's command line, `attached.py` connects to servers that are already running,
and `adapters.py` loads an adapter and verifies that the engine serves it as it was trained.
"""
