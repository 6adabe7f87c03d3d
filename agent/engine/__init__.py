"""The engine: our client and supervisor of vLLM. Read client.py first, then supervisor.py.

`guard.py` keeps child processes from outliving the daemon; `adapters.py` loads an adapter and
lets it prove that it is the one that was trained.
"""
