"""The operator's files: rejected with the line of the error, or usable as they are."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import anchors
from store.anchors import CHECKS, Anchor, BadAnchor
from store.input_files import BadInput, read_anchors, read_prompts, read_system_prompt

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
    ),
    max_leaves=5,
)
ELSEWHERE = {"anyOf": [{"$ref": "http://127.0.0.1:9/schema"}]}
ASKED = ({"role": "user", "content": "When?"},)


@given(
    expect=st.dictionaries(st.sampled_from([*CHECKS, "other"]), VALUES, max_size=2),
    answer=st.text(max_size=10),
)
def test_an_anchor_is_rejected_at_creation_or_checks_every_answer(expect, answer):
    try:
        anchor = Anchor(ASKED, expect)
    except BadAnchor:
        return
    assert anchor.passes(answer) in (True, False)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"prompt": "q", "expect": {"contains": 5}}, "contains"),
        ({"prompt": "q", "expect": {"contains": []}}, "contains"),
        ({"prompt": "q", "expect": {"contains_any": ["a", 5]}}, "contains_any"),
        ({"prompt": "q", "expect": {"regex": 7}}, "regex"),
        ({"prompt": "q", "expect": {"regex": "("}}, "regex"),
        ({"prompt": "q", "expect": {"regex": "a{99999999999}"}}, "regex"),
        ({"prompt": "q", "expect": {"json_schema": {"type": "texts"}}}, "json_schema"),
        ({"prompt": "q", "expect": {"json_schema": {"pattern": "("}}}, "json_schema"),
        ({"prompt": "q", "expect": {"json_schema": {"$ref": "#"}}}, "json_schema"),
        ({"prompt": "q", "expect": {"json_schema": {"$ref": "#/$defs/gone"}}}, "json_schema"),
        ({"prompt": "q", "expect": {"json_schema": ELSEWHERE}}, "json_schema"),
        ({"prompt": "q", "expect": {"includes": "x"}}, "includes"),
        ({"prompt": "q"}, "expect"),
        ({"prompt": "q", "expect": {"contains": "a"}, "regex": "b"}, "move regex into"),
        ({"messages": ["q"], "expect": {"regex": "a"}}, "role"),
    ],
)
def test_an_anchor_that_cannot_be_checked_is_an_error_that_names_the_line(tmp_path, line, problem):
    path = write(tmp_path, {"prompt": "q", "expect": {"contains": "a"}}, line)
    with pytest.raises(BadInput, match=f"line 2: .*{problem}"):
        read_anchors(path)


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": " "},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": ["a"]}]},
        {"messages": [{"role": "shop", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "q", "weight": float("nan")},
        {"prompt": "half of an emoji: \ud83d"},
        ["q"],
    ],
)
def test_an_invalid_prompt_is_an_error_that_names_the_line(tmp_path, line):
    with pytest.raises(BadInput, match="line 2"):
        read_prompts(write(tmp_path, {"prompt": "q"}, line))


def test_a_deeply_nested_line_is_an_error_that_names_the_line(tmp_path):
    path = write(tmp_path, {"prompt": "q"})
    path.write_text(path.read_text() + "\n" + "[" * 100_000)

    with pytest.raises(BadInput, match=r"line 2: .*less nesting"):
        read_prompts(path)


@pytest.mark.parametrize("answer", ["[" * 100_000, "1" * 5000, "NaN", "[NaN]", "[", ""])
def test_an_answer_that_is_not_json_fails_every_schema(answer):
    assert not Anchor(ASKED, {"json_schema": {}}).passes(answer)


def test_a_schema_may_refer_to_its_own_definitions():
    schema = {"items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "number"}}}

    assert Anchor(ASKED, {"json_schema": schema}).passes("[1, 2]")
    assert not Anchor(ASKED, {"json_schema": schema}).passes('[1, "2"]')


def test_a_prompt_is_one_message_or_a_chat(tmp_path):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    path = write(tmp_path, {"prompt": "q"}, {"messages": chat})
    assert read_prompts(path) == (({"role": "user", "content": "q"},), tuple(chat))


def write(folder: Path, *lines: object) -> Path:
    path = folder / "lines.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_a_slow_regular_expression_times_out(monkeypatch):
    monkeypatch.setattr(anchors, "REGEX_TIMEOUT_S", 0.05)
    anchor = Anchor(ASKED, {"regex": "^(?:a|[a-z ]|[a-z])+$"})

    with pytest.raises(BadAnchor, match=r"takes more than 0\.05 s on an answer of 60 characters"):
        anchor.passes("when do you open " * 3 + "or close?")
    assert anchor.passes("a")


def test_a_slow_schema_pattern_times_out(monkeypatch):
    monkeypatch.setattr(anchors, "REGEX_TIMEOUT_S", 0.05)
    anchor = Anchor(ASKED, {"json_schema": {"pattern": "^(?:a|[a-z ]|[a-z])+$"}})

    with pytest.raises(BadAnchor, match=r"takes more than 0\.05 s"):
        anchor.passes(json.dumps("when do you open " * 3 + "or close?"))
    assert anchor.passes('"a"')
    assert not anchor.passes('"7"')


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    path = tmp_path / "context.md"
    path.write_bytes("\ufeffWe open at 7.\r\nBe kind.".encode())

    assert read_system_prompt(path) == "We open at 7.\nBe kind."


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"We open at 7.\nCaf\xe9", r"is not UTF-8 \(line 2\): save it as UTF-8"),
        ("Café".encode("utf-16"), "is not UTF-8"),
        (b"We open\nat\x00 7.", r"is not a text file: line 2 contains '\\x00'"),
        (b" \n", "is empty"),
    ],
)
def test_a_file_that_is_not_text_is_rejected_with_the_remedy(tmp_path, content, problem):
    path = tmp_path / "context.md"
    path.write_bytes(content)

    with pytest.raises(BadInput, match=f"context.md {problem}"):
        read_system_prompt(path)


def test_a_missing_file_is_reported_as_missing(tmp_path):
    with pytest.raises(BadInput, match=r"File not found: .*none\.md\.$"):
        read_system_prompt(tmp_path / "none.md")
