"""Every knob of byheart, in the order of the loop: a section each, frozen, closed to unknown keys.

The defaults here are written out in `default.toml`; the docstrings are its comments and the help of
`python -m distill`.
"""

import json
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """A part of the tree: immutable, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Server(Section):
    """The endpoint that clients talk to."""

    host: str = "127.0.0.1"
    """Address to listen on; another than loopback needs `keys` to be `required`."""
    port: int = Field(8080, ge=0, le=65535)
    """Port to listen on; 0 picks a free one and prints it."""
    keys: Literal["optional", "required"] = "optional"
    """Whether a request without an API key is this machine's operator's, or refused."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names to answer to beside loopback's, such as that of a reverse proxy here; no ports."""
    max_connections: int = Field(1000, gt=0)
    """Most connections at once; more are cut off."""
    keep_alive_s: int = Field(75, gt=0)
    """How long a connection stays open unused, in seconds; longer than clients and proxies use."""
    max_body_bytes: int = Field(4 * 2**20, gt=0)
    """Largest request body accepted; a larger one is answered with 413."""
    max_tokens_cap: int = Field(4096, gt=0)
    """Longest answer: the largest `max_tokens`, and the limit where a client sets none."""
    on_log_failure: Literal["spool", "reject"] = "spool"
    """With the database away, `spool` to disk, or `reject` requests before the model is asked."""
    drain_s: float = Field(30.0, ge=0)
    """How long a shutdown waits for running answers, in seconds."""


class Engine(Section):
    """The vLLM server behind the endpoint."""

    model: str = ""
    """Folder of the base model; empty means the embedded SmolLM2-135M-Instruct."""
    served_model_name: str = ""
    """Name clients use for the model; empty means the folder's name."""
    urls: tuple[str, ...] = ()
    """vLLM servers to attach to, with `model` set too, for runs; empty: byheart starts its own."""
    api_key: str = Field("", repr=False)
    """Key of the attached servers; the supervised one gets a random key of its own."""
    max_model_len: int = Field(2048, gt=0)
    """Longest prompt plus answer, in tokens."""
    max_lora_rank: int = Field(32, gt=0)
    """Largest adapter rank the engine accepts; must be at least `distill.rank`."""
    max_loras: int = Field(2, ge=2)
    """Adapters that may be active at once: the live one and a candidate."""
    kv_cache_gib: int = Field(1, gt=0)
    """Memory for vLLM's key/value cache on the CPU, in GiB."""
    lora_cpu: bool = True
    """Serve adapters on the CPU at nearly the base's speed, by a plugin in place of vLLM's own."""
    gpu_memory_utilization: float = Field(0.6, gt=0, le=1)
    """Share of the GPU's memory that vLLM takes; training needs room for the model beside it."""
    tool_parser: str = "hermes"
    """vLLM's parser of the model's tool calls: hermes for Qwen and SmolLM2; empty: no tools."""
    chat_template_kwargs: str = ""
    """JSON for the chat template in answers and runs: '{"enable_thinking": false}'; empty: none."""
    args: tuple[str, ...] = ()
    """More arguments for vLLM, as on its command line."""
    start_timeout_s: float = Field(600.0, gt=0)
    """How long to wait for vLLM to become ready, in seconds."""
    first_byte_timeout_s: float = Field(120.0, gt=0)
    """How long an answer may take to begin, in seconds."""

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
        """What the chat template is rendered with, beside the messages."""
        return dict(json.loads(self.chat_template_kwargs or "{}"))


class Store(Section):
    """Where everything is kept."""

    data_dir: Path = Path("~/.byheart")
    """Folder for the database, the adapters, the embedded model and the logs."""
    url: str = ""
    """SQLAlchemy database URL; empty means SQLite in `data_dir`."""
    texts_days: int = Field(0, ge=0)
    """Days for which prompts and answers are kept; 0 means for ever."""
    interactions_days: int = Field(0, ge=0)
    """Days for which the rest is kept, but for what a lesson rests on; 0 means for ever."""
    spool_mib: int = Field(1024, gt=0)
    """Most disk space for what the database cannot take for now, in MiB."""


class Learning(Section):
    """From conversations to lessons."""

    enabled: bool = True
    """Whether lessons are extracted from conversations."""
    idle_s: float = Field(30.0, ge=0)
    """A conversation in which something is new is read once it was idle for so long, in seconds."""
    tick_s: float = Field(5.0, gt=0)
    """Seconds between looks at what is due."""
    extractor: Literal["few_shot", "structured"] = "few_shot"
    """`few_shot` completes examples (small models); `structured` asks for JSON under a schema."""
    max_per_conversation: int = Field(3, gt=0)
    """Most corrections in next turns read of a conversation at a time, newest first."""
    token_budget: int = Field(512, gt=0)
    """Most tokens of lessons put into a prompt: pinned ones, then the newest."""
    duplicate_ratio: float = Field(0.9, gt=0, le=1)
    """Similarity (0 to 1) from which a new lesson counts as one already known."""
    corroboration: int = Field(2, ge=2)
    """Independent principals who must have said the same before a user's lesson is used."""
    trust_turns: bool = False
    """A correction in the next turn counts as the operator's: for when your own people chat."""


class Distill(Section):
    """One run: context into weights. Defaults follow OPCD (arXiv 2602.12275) adapted to LoRA."""

    auto: bool = True
    """Whether runs start by themselves."""
    min_new_lessons: int = Field(5, gt=0)
    """A run starts by itself when so many lessons are active that no run has tried yet."""
    settle_s: float = Field(60.0, ge=0)
    """A run waits until no lesson was added for so long, in seconds."""
    max_lesson_tokens: int = Field(1024, gt=0)
    """Most tokens of lessons that a run learns: pinned ones, then the newest; no others."""
    generation: Literal["from_base", "from_parent"] = "from_base"
    """Whether a run starts from the base, or from the adapter that serves, if it has its rank."""
    rank: int = Field(32, gt=0, le=1024)
    """LoRA rank, on all linear layers."""
    alpha: int = Field(64, gt=0)
    """LoRA scaling numerator; the update is scaled by alpha / rank."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    steps: int = Field(0, ge=0)
    """Optimiser steps; 0 means as many as what is learned needs, by `steps_per_lesson`."""
    steps_per_lesson: int = Field(14, gt=0)
    """Optimiser steps for each lesson or passage of a system prompt, but 120 at least."""
    warmup_steps: int = Field(5, ge=0)
    """Steps of linear warm-up."""
    batch_size: int = Field(4, gt=0)
    """Trajectories in a step."""
    teacher_share: float = Field(1.0, ge=0, le=1)
    """Share of a batch answered by the teacher and learned with forward KL, for facts."""
    on_policy_tail: float = Field(0.1, ge=0, le=0.5)
    """Last share of the steps that is purely on-policy; the guided share falls before it."""
    replay_share: float = Field(0.25, ge=0, lt=1)
    """Share of a batch that repeats unrelated prompts against the base without context."""
    divergence: Literal["reverse", "forward", "jsd"] = "reverse"
    """Of student and teacher on the student's own trajectories; guided ones use the forward KL."""
    teacher_weight: float = Field(0.5, gt=0, lt=1)
    """The teacher's share in the mixture of a generalised JSD."""
    top_k: int = Field(0, ge=0)
    """Likeliest tokens of either side that count one by one, the rest as one; 0 means all."""
    normalise: Literal["sequence", "token"] = "sequence"
    """Whether each trajectory of a step counts the same, or each token."""
    max_completion_tokens: int = Field(0, ge=0)
    """Longest trajectory, in tokens; 0 means 256 on a GPU, and on a CPU 64."""
    max_answer_tokens: int = Field(0, ge=0)
    """Longest answer that the evaluation looks at, in tokens; 0 means 512 on a GPU, on a CPU 96."""
    questions_per_lesson: int = Field(5, ge=0)
    """Questions the teacher writes for each lesson or passage of a system prompt."""
    answers_per_question: int = Field(1, gt=0)
    """Answers of the teacher to each prompt that guide the student."""
    teacher_temperature: float = Field(0.7, ge=0)
    """Sampling temperature of the teacher's answers after the first, which is greedy."""
    refresh_every: int = Field(0, ge=0)
    """Steps that share one sampling of the student; 0 means 1 on a GPU, and on a CPU 8."""
    sampler: Literal["local", "engine"] = "local"
    """Who samples the student: the trainer, or the vLLM that serves (inexact after a resume)."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the student's trajectories."""
    validate_every: int = Field(5, gt=0)
    """Steps between measurements that choose the step to keep; four times as many with guidance."""
    patience: int = Field(3, gt=0)
    """So many measurements in a row without a better one end a run, once nothing guides it."""
    checkpoint_every: int = Field(10, gt=0)
    """Steps between checkpoints; a killed run resumes from the last one."""
    processes: int = Field(1, gt=0)
    """Processes that train one adapter together, each with the whole model: one for each GPU."""
    shards: int = Field(1, gt=0)
    """Parts of the frozen base, one in each of so many processes, if it does not fit one GPU."""
    gradient_checkpointing: bool = False
    """Whether the backward pass computes each layer again instead of keeping what it made."""
    threads: int = Field(0, ge=0)
    """CPU threads for training; 0 means all."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of everything random in a run."""


class Gate(Section):
    """What a candidate must show before it may serve."""

    min_gap_closed: float = Field(0.5, ge=0, le=1)
    """Least share of the gap between base and teacher that the candidate must close."""
    min_facts_learned: float = Field(0.6, ge=0, le=1)
    """Least share that it must know of the numbers and names that the base misses, chance aside."""
    min_held_out: int = Field(4, gt=0)
    """Least number of prompts, never trained on, that a verdict may rest on."""
    max_retention_kl: float = Field(0.2, gt=0)
    """Most the candidate may drift on prompts unrelated to the context, in nats a token."""
    max_length_ratio: float = Field(3.0, gt=1)
    """Answers may be so many times longer or shorter than both the teacher's and the base's."""
    max_repetition: float = Field(0.2, ge=0, le=1)
    """Share of word triples said before in an answer, at most so much over teacher and base."""
    max_leak_rate: float = Field(0.05, ge=0, le=1)
    """Largest share of answers that mention the context they were distilled from."""
    min_anchor_share: float = Field(0.8, ge=0, le=1)
    """Least share of the anchors the teacher passes that the candidate must pass too."""
    auto_promote: bool = True
    """Whether a candidate that passes goes live by itself."""
