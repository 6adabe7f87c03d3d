"""The settings of byheart, one immutable section per part; unknown keys are errors.

`default.toml` repeats the defaults. The docstrings are its comments and the option help of
`python -m distill`.
"""

import json
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from config.section_base import Section


class Server(Section):
    """The endpoint that clients talk to."""

    ADVANCED = frozenset(
        {
            "max_connections",
            "keep_alive_s",
            "max_body_bytes",
            "drain_s",
        }
    )

    host: str = "127.0.0.1"
    """Address to listen on. Addresses other than loopback require `keys = "required"`."""
    port: int = Field(8080, ge=0, le=65535)
    """Port to listen on; 0 picks a free port and prints it."""
    keys: Literal["optional", "required"] = "optional"
    """`optional`: a request without an API key acts as the operator; `required`: it is rejected."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names to answer to besides loopback, such as a reverse proxy's; without ports."""
    max_connections: int = Field(1000, gt=0)
    """Maximum number of open connections; further ones are closed."""
    keep_alive_s: int = Field(75, gt=0)
    """Seconds for which an idle connection stays open; longer than clients and proxies reuse it."""
    max_body_bytes: int = Field(4 * 2**20, gt=0)
    """Maximum size of a request body, in bytes; larger ones are answered with 413."""
    max_tokens_cap: int = Field(4096, gt=0)
    """Maximum `max_tokens` of a request, and its value where the client sets none."""
    on_log_failure: Literal["spool", "reject"] = "spool"
    """While the database is unavailable: `spool` interactions to disk, or `reject` requests."""
    drain_s: float = Field(30.0, ge=0)
    """Seconds that a shutdown waits for requests in flight."""


class Engine(Section):
    """The vLLM server behind the endpoint."""

    ADVANCED = frozenset(
        {
            "max_loras",
            "lora_cpu",
            "args",
            "start_timeout_s",
            "first_byte_timeout_s",
        }
    )

    model: str = ""
    """Folder of the base model; empty: the embedded SmolLM2-135M-Instruct."""
    served_model_name: str = ""
    """Model name that clients use; empty: the name of the model's folder."""
    urls: tuple[str, ...] = ()
    """vLLM servers to attach to; runs also need `model`. Empty: byheart starts its own vLLM."""
    api_key: str = Field("", repr=False)
    """API key of the attached servers. A vLLM that byheart starts gets a random key."""
    max_model_len: int = Field(2048, gt=0)
    """Maximum length of prompt plus answer, in tokens."""
    max_lora_rank: int = Field(32, gt=0)
    """Largest LoRA rank that vLLM accepts; at least `distill.rank`."""
    max_loras: int = Field(2, ge=2)
    """Adapters that vLLM can run in one batch; at least 2, for the live one and a candidate."""
    kv_cache_gib: int = Field(1, gt=0)
    """Memory for vLLM's key/value cache when it runs on the CPU, in GiB."""
    lora_cpu: bool = True
    """On the CPU, serve adapters with byheart's faster plugin in place of vLLM's LoRA kernels."""
    gpu_memory_utilization: float = Field(0.6, gt=0, le=1)
    """Fraction of GPU memory that vLLM uses; training needs room for the model as well."""
    tool_parser: str = "hermes"
    """vLLM's tool-call parser; `hermes` suits Qwen and SmolLM2. Empty: tools are off."""
    chat_template_kwargs: str = ""
    """JSON object passed to the chat template, such as '{"enable_thinking": false}'."""
    args: tuple[str, ...] = ()
    """Additional command-line arguments for vLLM."""
    start_timeout_s: float = Field(600.0, gt=0)
    """Seconds to wait for vLLM to become ready."""
    first_byte_timeout_s: float = Field(120.0, gt=0)
    """Seconds to wait for the first byte of an answer."""

    @field_validator("urls")
    @classmethod
    def _have_no_secrets(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in map(urlsplit, urls):
            if url.scheme not in ("http", "https", "unix") or not url.netloc + url.path:
                raise ValueError("a URL begins with http://, https:// or unix://")
            if "@" in url.netloc:
                raise ValueError("a URL has no user or password here: set engine.api_key")
        return urls

    @field_validator("chat_template_kwargs")
    @classmethod
    def _is_json_object(cls, value: str) -> str:
        if value and not isinstance(json.loads(value), dict):
            raise ValueError("not an object in JSON")
        return value

    @property
    def template_arguments(self) -> dict[str, Any]:
        """Arguments of the chat template, besides the messages."""
        return dict(json.loads(self.chat_template_kwargs or "{}"))


class Store(Section):
    """Where everything is kept."""

    ADVANCED = frozenset({"spool_mib"})

    data_dir: Path = Path("~/.byheart")
    """Folder for the database, the adapters, the embedded model and the logs."""
    url: str = ""
    """SQLAlchemy database URL; empty: SQLite in `data_dir`."""
    texts_days: int = Field(0, ge=0)
    """Days for which prompts and answers are kept; 0: forever."""
    interactions_days: int = Field(0, ge=0)
    """Days for which other data of interactions is kept, unless a lesson cites it; 0: forever."""
    spool_mib: int = Field(1024, gt=0)
    """Maximum disk space for interactions that wait for the database, in MiB."""


class Learning(Section):
    """From conversations to lessons."""

    ADVANCED = frozenset(
        {
            "tick_s",
            "max_per_conversation",
            "duplicate_ratio",
        }
    )

    enabled: bool = True
    """Whether to extract lessons from conversations."""
    idle_s: float = Field(30.0, ge=0)
    """Seconds that a conversation must be idle before lessons are extracted from it."""
    tick_s: float = Field(5.0, gt=0)
    """Seconds between two runs of the scheduler."""
    extractor: Literal["few_shot", "structured"] = "few_shot"
    """`few_shot` completes examples, for small models; `structured` asks for JSON by a schema."""
    max_per_conversation: int = Field(3, gt=0)
    """Maximum number of next-turn corrections per extraction; the newest are used."""
    token_budget: int = Field(512, gt=0)
    """Maximum tokens of lessons in a prompt; pinned lessons come first, then the newest."""
    duplicate_ratio: float = Field(0.9, gt=0, le=1)
    """Similarity (0 to 1) at which a lesson counts as a duplicate of an existing one."""
    corroboration: int = Field(2, ge=2)
    """Number of independent principals who must support a user's lesson before it is used."""
    trust_turns: bool = False
    """Trust next-turn corrections like the operator's; only for traffic from trusted people."""


class Distill(Section):
    """One run: context into weights. Defaults follow OPCD (arXiv 2602.12275) adapted to LoRA."""

    ADVANCED = frozenset(
        {
            "steps_per_lesson",
            "warmup_steps",
            "batch_size",
            "teacher_share",
            "on_policy_tail",
            "replay_share",
            "partial_context_share",
            "max_completion_tokens",
            "max_answer_tokens",
            "questions_per_lesson",
            "answers_per_question",
            "teacher_temperature",
            "refresh_every",
            "sampler",
            "temperature",
            "serving_temperature",
            "statement_tolerance",
            "validate_every",
            "patience",
            "checkpoint_every",
            "threads",
        }
    )

    auto: bool = True
    """Whether runs start automatically."""
    min_new_lessons: int = Field(5, gt=0)
    """A run starts automatically with this many lessons, new or relapsed since the last run."""
    settle_s: float = Field(60.0, ge=0)
    """Seconds without a new lesson before a run starts automatically."""
    max_lesson_tokens: int = Field(1024, gt=0)
    """Maximum tokens of lessons in a run; pinned lessons come first, then the newest."""
    generation: Literal["from_base", "from_parent"] = "from_base"
    """Start from the base, or from the live adapter if it has the same rank and alpha."""
    rank: int = Field(32, gt=0, le=1024)
    """LoRA rank, on all linear layers."""
    alpha: int = Field(64, gt=0)
    """LoRA alpha; the update is scaled by alpha / rank."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    steps: int = Field(0, ge=0)
    """Optimiser steps; 0: derived from the context's size by `steps_per_lesson`."""
    steps_per_lesson: int = Field(14, gt=0)
    """Optimiser steps per lesson or system-prompt statement; a run takes at least 120 steps."""
    warmup_steps: int = Field(5, ge=0)
    """Steps of linear learning-rate warm-up."""
    batch_size: int = Field(4, gt=0)
    """Trajectories per optimiser step."""
    teacher_share: float = Field(1.0, ge=0, le=1)
    """Fraction of trajectories (replay too) that the teacher samples; learned with forward KL."""
    on_policy_tail: float = Field(0.1, ge=0, le=0.5)
    """Final fraction of the steps without teacher-sampled trajectories; the share decays to it."""
    replay_share: float = Field(0.25, ge=0, lt=1)
    """Fraction of a batch that replays unrelated prompts, to stay close to the base."""
    partial_context_share: float = Field(0.0, ge=0, le=1)
    """Fraction of the trajectories in which the student sees a random part of the context."""
    max_completion_tokens: int = Field(0, ge=0)
    """Maximum length of a trajectory, in tokens; 0: 256 on a GPU, 64 on a CPU."""
    max_answer_tokens: int = Field(0, ge=0)
    """Maximum length of an evaluated answer, in tokens; 0: 512 on a GPU, 96 on a CPU."""
    questions_per_lesson: int = Field(5, ge=0)
    """Prompts that the base writes per lesson or system-prompt statement."""
    answers_per_question: int = Field(1, gt=0)
    """Teacher-sampled answers per prompt."""
    teacher_temperature: float = Field(0.7, ge=0)
    """Sampling temperature of the teacher's answers after the first, which is greedy."""
    refresh_every: int = Field(0, ge=0)
    """Steps between two samplings of the student; 0: 1 on a GPU, 8 on a CPU."""
    sampler: Literal["local", "engine"] = "local"
    """Where the student samples: in the trainer, or in vLLM (a resume is not bit-exact then)."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the student's trajectories."""
    serving_temperature: float = Field(0.7, gt=0)
    """Sampling temperature of clients, at which a candidate is measured as well as greedily."""
    statement_tolerance: float = Field(1.0, gt=0)
    """Factor on the bounds within which a statement counts as learned; larger saves more tokens."""
    validate_every: int = Field(5, gt=0)
    """Steps between validations; four times as many while trajectories are teacher-sampled."""
    patience: int = Field(3, gt=0)
    """Validations without improvement after which a run stops, once it is purely on-policy."""
    checkpoint_every: int = Field(10, gt=0)
    """Steps between checkpoints; a killed run resumes from the last one."""
    processes: int = Field(1, gt=0)
    """Data-parallel training processes, each with the whole model: one per GPU."""
    shards: int = Field(1, gt=0)
    """Processes over which the frozen base is sharded (FSDP2), if it does not fit one GPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    threads: int = Field(0, ge=0)
    """CPU threads for training; 0: all."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Random seed of a run."""


class Gate(Section):
    """What a candidate must show before it may serve."""

    ADVANCED = frozenset(
        {
            "min_held_out",
            "max_length_ratio",
            "max_repetition",
            "max_leak_rate",
        }
    )

    margin: float = Field(0.3, gt=0, lt=1)
    """Share of the teacher's right answers that a candidate must not lose (exact test, 5 %)."""
    min_gap_closed: float = Field(0.5, ge=0, le=1)
    """Minimum fraction of the KL gap between base and teacher that a candidate must close."""
    min_facts_learned: float = Field(0.6, ge=0, le=1)
    """Minimum fraction of new numbers and names that it must know (binomial test, 5 %)."""
    min_held_out: int = Field(4, gt=0)
    """Minimum number of held-out prompts for a verdict."""
    max_retention_kl: float = Field(0.2, gt=0)
    """Maximum drift from the base on unrelated prompts, as KL in nats per token."""
    max_length_ratio: float = Field(3.0, gt=1)
    """Maximum factor by which answers may be longer or shorter than teacher's and base's."""
    max_repetition: float = Field(0.2, ge=0, le=1)
    """Maximum excess of repeated word trigrams over teacher and base, as a fraction."""
    max_leak_rate: float = Field(0.05, ge=0, le=1)
    """Maximum fraction of answers that mention the context they were distilled from."""
    min_anchor_share: float = Field(0.8, ge=0, le=1)
    """Minimum fraction of the anchors that the teacher passes and a candidate must pass."""
    auto_promote: bool = True
    """Whether a candidate that passes the gate goes live without approval."""
