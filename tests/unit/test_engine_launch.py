"""How vLLM is started: what is open and what is closed."""

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


def test_it_listens_on_the_socket_only() -> None:
    words = command()

    assert words[:5] == ["python", "-m", "server", "--model", "/m"]
    assert following(words, "--uds") == "/run/v.sock"
    assert "--host" not in words
    assert "--port" not in words
    assert "--disable-fastapi-docs" in words


def test_adapters_may_come_and_go() -> None:
    words = command(max_loras=3)

    assert "--enable-lora" in words
    assert following(words, "--max-loras") == "3"
    assert int(following(words, "--max-cpu-loras")) >= 5
    assert "--enable-prefix-caching" in words


@pytest.mark.parametrize(
    ("asked", "given"), [(1, "1"), (8, "8"), (9, "16"), (32, "32"), (33, "64")]
)
def test_the_rank_is_one_that_vllm_takes(asked: int, given: str) -> None:
    assert following(command(max_lora_rank=asked), "--max-lora-rank") == given


def test_the_operators_arguments_come_last() -> None:
    assert command(args=("--dtype", "float32"))[-2:] == ["--dtype", "float32"]


def test_the_key_is_in_the_environment_and_on_no_command_line() -> None:
    environment = launch.environment(Engine(), "hush", True, {"PATH": "/bin"})

    assert environment["VLLM_API_KEY"] == "hush"
    assert "hush" not in " ".join(command())


def test_the_environment_is_offline_and_closed() -> None:
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


def test_its_processes_speak_to_each_other_in_the_folder_that_it_is_started_in() -> None:
    assert launch.environment(Engine(), "k", False, {})["VLLM_RPC_BASE_PATH"] == "."


def test_only_on_the_cpu_is_the_compiler_off_and_the_cache_sized_by_environment() -> None:
    settings = Engine(kv_cache_gib=3)

    on_cpu = launch.environment(settings, "k", True, {})
    on_gpu = launch.environment(settings, "k", False, {})

    assert on_cpu.items() - on_gpu.items() == {
        ("VLLM_CPU_KVCACHE_SPACE", "3"),
        ("TORCHDYNAMO_DISABLE", "1"),
        ("BYHEART_ENGINE__LORA_CPU", "1"),
    }


def test_the_chat_template_is_rendered_with_the_arguments_that_runs_use() -> None:
    rendered = '{"enable_thinking": false}'

    words = command(chat_template_kwargs=rendered)

    assert following(words, "--default-chat-template-kwargs") == rendered


def test_tools_are_served_with_the_parser_of_the_models_family() -> None:
    assert following(command(tool_parser="llama3_json"), "--tool-call-parser") == "llama3_json"
    assert "--enable-auto-tool-choice" not in command(tool_parser="")


def test_the_cpu_build_is_started_as_a_module() -> None:
    with_bf16 = "flags : fpu avx2 avx512_bf16"

    assert launch.launcher(True, with_bf16, 0.6)[1:] == ("-m", MODULE, "--model")


def test_the_gpu_build_leaves_room_for_the_trainer() -> None:
    command = launch.launcher(False, "flags : fpu avx2", 0.6)

    assert command[1:] == ("serve", "--gpu-memory-utilization", "0.6")


def test_a_cpu_without_bf16_computes_in_float32() -> None:
    start = launch.launcher(True, "flags : fpu avx2 avx512f", 0.6)

    assert start[1:] == ("-m", MODULE, "--dtype", "float32", "--model")


def test_the_sockets_folder_is_private(tmp_path: Path) -> None:
    folder = launch.socket_directory(tmp_path)

    assert folder == tmp_path / "run"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_socket_path_too_long_for_the_system_lies_elsewhere(tmp_path: Path) -> None:
    folder = launch.socket_directory(tmp_path / ("x" * 100))

    assert len(bytes(folder / "vllm.sock")) < 100
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()


def test_sockets_that_a_killed_engine_left_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "vllm.sock"))
    (tmp_path / "notes").touch()

    launch.clear_sockets(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
