"""`byheart compile --wait` succeeds when the adapter is live, and only then."""

from pathlib import Path

import pytest

from agent.cli.compile import NOTHING_TO_LEARN, outcome
from agent.engine import tokens
from agent.learning.operator_edits import MIN_FREE_TOKENS, PromptTooLong, prompt_length
from config.settings import load
from store import namespaces, runs
from store.db import Database
from store.schema import AdapterStatus, RunStatus
from tests.support.factories import NOW, add_adapter
from tests.support.tiny import tiny_tokenizer

SETTINGS = load(environ={})
BY_HAND = load(environ={}, overrides={"gate": {"auto_promote": False}})


@pytest.fixture
def shop(db: Database) -> Database:
    with db.begin() as session:
        namespaces.ensure(session, "shop", NOW)
    return db


def published(db: Database, status: AdapterStatus) -> str:
    """A run whose adapter has come as far as that."""
    with db.begin() as session:
        adapter = add_adapter(session)
        adapter.status = status
        runs.start(session, adapter.run, NOW)
        runs.finish(session, adapter.run, RunStatus.PUBLISHED, "Learned.", NOW, adapter.name)
        return adapter.run


@pytest.mark.parametrize("status", AdapterStatus)
def test_compile_succeeds_only_once_the_adapter_is_live(
    shop: Database, status: AdapterStatus
) -> None:
    ended = outcome(SETTINGS, shop, published(shop, status))
    if status is AdapterStatus.CANDIDATE:
        assert ended is None
    else:
        assert ended is not None
        message, code = ended
        assert str(status) in message
        assert code == (0 if status is AdapterStatus.LIVE else 1)


@pytest.mark.parametrize("status", sorted(set(RunStatus) - {RunStatus.PUBLISHED}))
def test_compile_fails_if_the_run_published_nothing(shop: Database, status: RunStatus) -> None:
    with shop.begin() as session:
        run = runs.open_run(session, "shop", {}, "a test", 100, NOW)
        run.status, run.reason = status, "Because."
    ended = outcome(SETTINGS, shop, run.id)
    if status in runs.UNFINISHED:
        assert ended is None
    else:
        code = NOTHING_TO_LEARN if status is RunStatus.NOTHING_TO_LEARN else 1
        assert ended == (f"{status}: Because.", code)


def test_a_system_prompt_that_leaves_no_room_for_an_answer_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.engine.tokens.count", lambda _, text: len(text))
    most = SETTINGS.engine.max_model_len
    room = most - MIN_FREE_TOKENS - SETTINGS.learning.token_budget
    assert prompt_length(SETTINGS, "x" * room) == room
    with pytest.raises(PromptTooLong, match=f"engine.max_model_len is {most}"):
        prompt_length(SETTINGS, "x" * (room + 1))


def test_tokens_are_counted_with_the_models_tokenizer_if_there_is_one(tmp_path: Path) -> None:
    text = "We open at 7."
    assert tokens.count(tmp_path, text) == len(text) // tokens.CHARS_PER_TOKEN + 1
    tiny_tokenizer().save_pretrained(tmp_path)
    assert tokens.count(tmp_path, text) == len(text)  # the tiny one has a token a character
