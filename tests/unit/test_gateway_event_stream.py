"""Streams in any chunking are relayed unchanged and recorded the same."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from agent.gateway.apis.api import never
from agent.gateway.apis.choices import is_end, is_usage_only, parse_body, parse_events
from agent.gateway.http.event_stream import EventStream
from tests.support.cpu_time import max_cpu_s

DONE = b"data: [DONE]\n\n"


def chunk(delta: dict, finish: str | None = None, **more: object) -> dict:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def event(value: dict, end: bytes = b"\n\n") -> bytes:
    return b"data: " + orjson.dumps(value) + end


USAGE = {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
texts = st.lists(st.text(max_size=6) | st.sampled_from(["[DONE]", "\n\n", '"usage"', "é😀"]))
ends = st.sampled_from([b"\n\n", b"\r\n\r\n"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    said = draw(texts)
    end = draw(ends)
    parts = [event(chunk({"role": "assistant", "content": ""}), end)]
    for text in said:
        if draw(st.booleans()):
            parts.append(b": keep-alive" + end)
        parts.append(event(chunk({"content": text}), end))
    parts.append(event(chunk({}, "stop"), end))
    if draw(st.booleans()):
        parts.append(event(USAGE, end))
    return b"".join([*parts, b"data: [DONE]" + end]), said


def cut(raw: bytes, at: list[int]) -> list[bytes]:
    places = sorted({place % (len(raw) + 1) for place in at})
    return [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True)]


def pass_through(pieces: list[bytes], keep_usage: bool) -> tuple[bytes, bytes, EventStream]:
    events = EventStream(is_end, never if keep_usage else is_usage_only)
    sent = b"".join(map(events.feed, pieces))
    events.finish()
    return sent, events.tail, events


@given(streams(), st.lists(st.integers(0, 10_000), max_size=40), st.booleans())
def test_any_chunking_of_a_stream_gives_the_same_bytes_and_record(
    stream: tuple[bytes, list[str]], at: list[int], keep_usage: bool
) -> None:
    raw, said = stream

    whole = pass_through([raw], keep_usage)
    pieces = pass_through(cut(raw, at), keep_usage)
    singles = pass_through([raw[i : i + 1] for i in range(len(raw))], keep_usage)

    assert whole[:2] == pieces[:2] == singles[:2]
    assert whole[2].complete
    if keep_usage:
        assert whole[0] + whole[1] == raw
    assert whole[1].strip() == b"data: [DONE]"
    answers = [parse_events(one[2].events) for one in (whole, pieces, singles)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].text == "".join(said)
    assert answers[0].finish_reason == "stop"


@given(st.lists(st.integers(0, 500), max_size=10))
def test_only_the_usage_chunk_is_removed(at: list[int]) -> None:
    before = event(chunk({"content": '"usage"'})) + event(chunk({}, "stop", usage=None))
    raw = before + event(USAGE) + DONE

    sent, tail, events = pass_through(cut(raw, at), keep_usage=False)

    assert (sent, tail) == (before, DONE)
    assert parse_events(events.events).prompt_tokens == 3


def test_a_truncated_stream_ends_with_its_last_complete_event() -> None:
    whole = event(chunk({"content": "Yes"}))
    for broken in (b"", b"d", b"data: {", event(chunk({"content": "No"}))[:-1]):
        sent, tail, events = pass_through([whole + broken], keep_usage=False)

        assert (sent, tail, events.complete) == (whole, b"", False)
        assert parse_events(events.events).text == "Yes"


def test_done_needs_no_blank_line_after_it() -> None:
    raw = event(chunk({"content": "Yes"}))

    for end in (b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n", b"\ndata: [DONE]\n\n"):
        sent, tail, events = pass_through([raw, end], keep_usage=False)
        assert (sent + tail, events.complete) == (raw + end, True)


def test_an_event_in_200000_chunks_is_parsed_in_linear_time() -> None:
    raw = event(chunk({"content": "x" * 400_000}))
    events = EventStream(is_end, is_usage_only)

    with max_cpu_s(5):
        sent = b"".join(events.feed(raw[i : i + 2]) for i in range(0, len(raw), 2))

    assert sent == raw


def test_tool_calls_are_assembled_from_their_deltas() -> None:
    def call(index: int, **function: str) -> dict:
        return {"tool_calls": [{"index": index, "function": function}]}

    first = call(0, name="look")
    first["tool_calls"][0]["id"] = "c1"
    pieces = [first, call(0, arguments='{"a"'), call(1, name="go"), call(0, arguments=":1}")]

    answer = parse_events(b"".join(event(chunk(piece)) for piece in pieces) + DONE)

    assert answer.tool_calls == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}},
        {"id": None, "type": "function", "function": {"name": "go", "arguments": ""}},
    ]


def test_the_texts_of_all_choices_are_recorded() -> None:
    pieces = [(2, "c"), (0, "a"), (1, "b"), (2, "C")]
    chunks = [{"choices": [{"index": n, "delta": {"content": text}}]} for n, text in pieces]
    answer = parse_events(b"".join(map(event, chunks)) + DONE)

    assert (answer.text, answer.other_choices) == ("a", ["b", "cC"])


def test_an_error_event_in_a_stream_is_recorded() -> None:
    raw = event(chunk({"content": "Ye"})) + event({"error": {"message": "out of memory"}}) + DONE

    assert parse_events(raw).error == "out of memory"


def test_a_plain_body_gives_text_and_counts() -> None:
    body = orjson.dumps(
        {
            "choices": [
                {"index": 1, "message": {"content": "other"}},
                {"index": 0, "message": {"content": "Yes"}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        }
    )

    answer = parse_body(body)

    assert (answer.text, answer.finish_reason) == ("Yes", "stop")
    assert answer.details()["others"] == ["other"]
    assert (answer.prompt_tokens, answer.completion_tokens) == (3, 1)
    assert parse_body(b"<html>").error
