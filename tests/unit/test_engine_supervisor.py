"""What the supervisor reads from vLLM's log."""

from agent.engine.supervisor import STAGES, current_stage, log_excerpt


def test_no_phase_is_known_before_the_first_line() -> None:
    assert current_stage("") is None


def test_the_phase_is_the_last_one_reached() -> None:
    markers = [marker for marker, _ in STAGES]

    for count, (_, stage) in enumerate(STAGES, start=1):
        assert current_stage("\n".join(markers[:count])) == stage


def test_the_last_words_hold_the_cause_though_much_was_said_after_it() -> None:
    cause = "(EngineCore pid=7) ERROR [core.py:1] ValueError: the KV cache is too small"
    chatter = [f"  File server.py, line {number}" for number in range(30)]

    words = log_excerpt("\n".join(["loading", cause, cause, *chatter, "RuntimeError: see above"]))

    assert words.splitlines()[0] == cause
    assert words.count(cause) == 1
    assert words.endswith("RuntimeError: see above")
    assert "loading" not in words


def test_a_short_log_is_quoted_whole() -> None:
    assert log_excerpt("one\n\ntwo\n") == "one\ntwo"
