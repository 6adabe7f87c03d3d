"""The service: gateway, engine, learning, training and rollout. Read daemon.py first.

It never imports torch, transformers, peft or vllm: training runs in a child process (`python -m
distill`), and the model is reached over HTTP. The exception is engine/lora_cpu.py, a plugin that
vLLM's own processes load.
"""
