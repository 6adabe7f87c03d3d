"""The service: gateway, engine, learning, rollout. Read daemon.py first, then jobs.py.

Never imports torch, transformers, peft or vllm: training is a child process (`python -m distill`)
and the model is behind HTTP.
"""
