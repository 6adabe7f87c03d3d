"""Maps errors to messages and exit codes."""

from agent.demo.errors import DemoFailed, ServiceDied, ShopError
from agent.engine.errors import EngineError
from agent.engine.launch import VllmNotInstalled
from agent.engine.supervisor import EngineFailed
from agent.learning.operator_edits import (
    DuplicateLesson,
    ExpiryInPast,
    LessonTooLong,
    PromptTooLong,
)
from agent.process.data_dir import SecretCorrupt, StartError
from config.settings import ConfigError
from store.adapters import UnknownAdapter
from store.audit import Tampered
from store.db import DATABASE_UNAVAILABLE, DatabaseError
from store.input_files import BadInput
from store.keys import TrustConflict, UnknownKey
from store.manifests import AdapterCorrupt
from store.namespaces import BadName, UnknownNamespace
from store.rollouts import NothingToRollBack, StaleAlias
from store.runs import UnknownRun
from store.schema import IllegalTransition


class InputError(Exception):
    """An argument or option is invalid; the message says what to use instead."""


FAILED = (
    *DATABASE_UNAVAILABLE,
    AdapterCorrupt,
    DatabaseError,
    DemoFailed,
    EngineError,
    EngineFailed,
    IllegalTransition,
    VllmNotInstalled,
    NothingToRollBack,
    ServiceDied,
    SecretCorrupt,
    StaleAlias,
    StartError,
    Tampered,
)
WRONG = (
    BadInput,
    BadName,
    ConfigError,
    InputError,
    DuplicateLesson,
    ExpiryInPast,
    LessonTooLong,
    PromptTooLong,
    ShopError,
    TrustConflict,
    UnknownAdapter,
    UnknownKey,
    UnknownNamespace,
    UnknownRun,
)


def explain(error: Exception) -> tuple[str | None, int]:
    """Return the message and exit code of an error; None as message of an unexpected one."""
    if isinstance(error, WRONG):
        return str(error), 2
    if isinstance(error, FAILED):
        return str(error), 1
    return None, 1
