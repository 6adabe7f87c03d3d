"""`record()`, `add_lesson()`, `add_adapter()` and others: rows with defaults for every field."""

import itertools
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from store import adapters, feedback, lessons, records, rollouts, runs, snapshots
from store.adapter_tables import Adapter, Run
from store.db import Session, new_id
from store.feedback import NewFeedback
from store.lessons import Support
from store.models import Lesson
from store.records import Record
from store.schema import InteractionStatus, LessonKind, LessonStatus, Trust

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OPERATOR = Support(None, None, "said so", "operator", Trust.OPERATOR)

_clock = itertools.count()


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def make_record(**values: Any) -> Record:
    defaults: dict[str, Any] = {
        "id": new_id("int"),
        "namespace": "shop",
        "conversation": None,
        "principal": "customer",
        "status": InteractionStatus.DONE,
        "version": "base",
        "arm": "live",
        "context_hash": "0" * 64,
        "learn": True,
        "created_at": later(next(_clock)),
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "tokens_saved": 0,
        "first_token_ms": 12.5,
        "total_ms": 80.25,
        "error": None,
        "messages": [user("Do you ship abroad?")],
        "params": {"temperature": 0.5},
        "response": "Yes.",
    }
    return Record(**defaults | values)


def record(session: Session, **values: Any) -> Record:
    made = make_record(**values)
    assert records.save(session.connection(), [made])
    return made


def add_feedback(
    session: Session, target: str, namespace: str = "shop", at: datetime = NOW, **values: Any
) -> None:
    """Add an operator's feedback on an interaction."""
    defaults = {
        "id": None,
        "name": "comment",
        "value": {},
        "comment": None,
        "demonstration": None,
        "tags": {},
        "principal": "local",
        "trust": Trust.OPERATOR,
    }
    values = defaults | values
    feedback.add(session, namespace, NewFeedback(target_id=target, **values), at)


def add_lesson(session: Session, do: str, namespace: str = "shop", **values: Any) -> Lesson:
    defaults: dict[str, Any] = {
        "kind": LessonKind.FACT,
        "trust": Trust.OPERATOR,
        "tokens": 10,
        "support": [OPERATOR],
        "status": LessonStatus.ACTIVE,
        "now": later(next(_clock)),
    }
    return lessons.add(session, namespace, do=do, **defaults | values)


def measured_statements(
    session: Session, run: Run, missed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """What a run measures of its context: it has learned all lessons and lines but those `missed`.

    A statement of the system prompt is a line of it; a word is a token.
    """
    snapshot = snapshots.get(session, run.snapshot, run.namespace)
    assert snapshot
    lines = re.finditer(r"\S.*", snapshot.system_prompt or "")
    stated = [(line.group(), [[*line.span(), len(line.group().split())]]) for line in lines]
    taught = [(lesson["text"], []) for lesson in snapshot.lessons]
    return [
        {
            "text": text,
            "lesson": not spans,
            "spans": spans,
            "support": [],
            "learned": text not in missed,
        }
        for text, spans in [*stated, *taught]
    ]


def add_adapter(
    session: Session,
    namespace: str = "shop",
    token_budget: int = 10_000,
    missed: Collection[str] = (),
    **measured: Any,
) -> Adapter:
    """A candidate that was trained on the namespace's context as it is now.

    It has learned all of it but the lessons, and lines of the system prompt, that it `missed`,
    unless other `statements` are measured.
    """
    run = runs.open_run(session, namespace, {}, "test", token_budget, NOW)
    name = new_id("bh")
    return adapters.register(
        session,
        name=name,
        namespace=namespace,
        run=run.id,
        parent=None,
        snapshot=run.snapshot,
        path=f"adapters/{namespace}/{name}",
        manifest_sha256="0" * 64,
        measured={
            "gap_closed": 0.9,
            "statements": measured_statements(session, run, missed),
            **measured,
        },
        now=NOW,
    )


def go_live(session: Session, namespace: str = "shop", missed: Collection[str] = ()) -> str:
    """Train, pass and promote an adapter for the context as it is now; its name."""
    adapter = add_adapter(session, namespace, missed=missed)
    rollouts.judge(session, adapter.name, True, ["Good."], NOW)
    serving = adapters.live(session, namespace)
    rollouts.promote(session, adapter.name, serving.name if serving else None, "Better.", NOW)
    return adapter.name
