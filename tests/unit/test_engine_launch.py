"""The command line and the environment that vLLM is started with."""

import socket
import stat
from pathlib import Path

import pytest

from agent.engine import launch
from config.sections import Engine

MODULE = "vllm.entrypoints.openai.api_server"
START = ("python", "-m", "server", "--model")


def command(**settings: object) -> list[str]:
    return launch.command(
        Engine.model_validate(settings), Path("/m"), "smol", Path("/run/v.sock"), START
    )


def following(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_vllm_listens_on_its_socket_only() -> None:
    words = command()

    assert words[:5] == ["python", "-m", "server", "--model", "/m"]
    assert following(words, "--uds") == "/run/v.sock"
    assert "--host" not in words
    assert "--port" not in words
    assert "--disable-fastapi-docs" in words


def test_adapters_can_be_loaded_and_unloaded_at_runtime() -> None:
    words = command(max_loras=3)

    assert "--enable-lora" in words
    assert following(words, "--max-loras") == "3"
    assert int(following(words, "--max-cpu-loras")) >= 5
    assert "--enable-prefix-caching" in words


@pytest.mark.parametrize(
    ("asked", "given"), [(1, "1"), (8, "8"), (9, "16"), (32, "32"), (33, "64")]
)
def test_the_maximum_rank_is_rounded_up_to_one_that_vllm_supports(asked: int, given: str) -> None:
    assert following(command(max_lora_rank=asked), "--max-lora-rank") == given


def test_the_operators_arguments_come_last() -> None:
    assert command(args=("--dtype", "float32"))[-2:] == ["--dtype", "float32"]


def test_the_key_is_passed_in_the_environment_and_not_on_the_command_line() -> None:
    environment = launch.environment(Engine(), "hush", True, {"PATH": "/bin"})

    assert environment["VLLM_API_KEY"] == "hush"
    assert "hush" not in " ".join(command())


def test_the_environment_is_offline_and_inherits_no_secrets() -> None:
    inherited = {
        "PATH": "/bin",
        "PYTHONPATH": "/repository",
        "VLLM_SERVER_DEV_MODE": "1",
        "BYHEART_STORE__URL": "postgresql://user:password@host/db",
    }

    environment = launch.environment(Engine(), "k", False, inherited)

    assert environment["PATH"] == "/bin"
    assert not environment.keys() & {"PYTHONPATH", "VLLM_SERVER_DEV_MODE", "BYHEART_STORE__URL"}
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert environment["HF_HUB_OFFLINE"] == environment["TRANSFORMERS_OFFLINE"] == "1"
    assert environment["VLLM_NO_USAGE_STATS"] == "1"


def test_vllms_own_sockets_are_in_its_working_directory() -> None:
    assert launch.environment(Engine(), "k", False, {})["VLLM_RPC_BASE_PATH"] == "."


def test_the_environment_disables_the_compiler_and_sizes_the_cache_only_on_the_cpu() -> None:
    settings = Engine(kv_cache_gib=3)

    on_cpu = launch.environment(settings, "k", True, {})
    on_gpu = launch.environment(settings, "k", False, {})

    assert on_cpu.items() - on_gpu.items() == {
        ("VLLM_CPU_KVCACHE_SPACE", "3"),
        ("TORCHDYNAMO_DISABLE", "1"),
        ("BYHEART_ENGINE__LORA_CPU", "1"),
    }


def test_vllm_renders_the_chat_template_with_the_arguments_of_runs() -> None:
    rendered = '{"enable_thinking": false}'

    words = command(chat_template_kwargs=rendered)

    assert following(words, "--default-chat-template-kwargs") == rendered


def test_tools_use_the_configured_parser_or_are_off() -> None:
    assert following(command(tool_parser="llama3_json"), "--tool-call-parser") == "llama3_json"
    assert "--enable-auto-tool-choice" not in command(tool_parser="")


def test_the_cpu_build_is_started_as_a_module() -> None:
    with_bf16 = "flags : fpu avx2 avx512_bf16"

    assert launch.launcher(True, with_bf16, 0.6)[1:] == ("-m", MODULE, "--model")


def test_the_gpu_build_uses_only_the_configured_share_of_memory() -> None:
    command = launch.launcher(False, "flags : fpu avx2", 0.6)

    assert command[1:] == ("serve", "--gpu-memory-utilization", "0.6")


def test_a_cpu_without_bf16_computes_in_float32() -> None:
    start = launch.launcher(True, "flags : fpu avx2 avx512f", 0.6)

    assert start[1:] == ("-m", MODULE, "--dtype", "float32", "--model")


def test_only_the_owner_can_access_the_sockets_folder(tmp_path: Path) -> None:
    folder = launch.socket_directory(tmp_path)

    assert folder == tmp_path / "run"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_socket_whose_path_would_be_too_long_is_put_elsewhere(tmp_path: Path) -> None:
    folder = launch.socket_directory(tmp_path / ("x" * 100))

    assert len(bytes(folder / "vllm.sock")) < 100
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()


def test_only_sockets_are_cleared_after_a_killed_engine(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "vllm.sock"))
    (tmp_path / "notes").touch()

    launch.clear_sockets(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
