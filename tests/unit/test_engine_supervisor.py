"""The stage of vLLM's start and the excerpt of its log."""

from agent.engine.supervisor import STAGES, current_stage, log_excerpt


def test_an_empty_log_has_no_stage() -> None:
    assert current_stage("") is None


def test_the_stage_is_the_last_one_reached() -> None:
    markers = [marker for marker, _ in STAGES]

    for count, (_, stage) in enumerate(STAGES, start=1):
        assert current_stage("\n".join(markers[:count])) == stage


def test_the_excerpt_starts_with_the_cause_even_if_much_follows_it() -> None:
    cause = "(EngineCore pid=7) ERROR [core.py:1] ValueError: the KV cache is too small"
    chatter = [f"  File server.py, line {number}" for number in range(30)]

    words = log_excerpt("\n".join(["loading", cause, cause, *chatter, "RuntimeError: see above"]))

    assert words.splitlines()[0] == cause
    assert words.count(cause) == 1
    assert words.endswith("RuntimeError: see above")
    assert "loading" not in words


def test_the_excerpt_of_a_short_log_is_the_whole_log() -> None:
    assert log_excerpt("one\n\ntwo\n") == "one\ntwo"
