"""The generated documents are up to date with the code."""

from pathlib import Path

import pytest

from agent import reference
from config.settings import valid_keys


@pytest.mark.parametrize("name", reference.DOCUMENTS)
def test_a_generated_document_is_up_to_date(name):
    assert Path(name).read_text() == reference.DOCUMENTS[name](), "run `make docs`"


def test_every_setting_and_its_default_are_in_the_configuration_reference():
    text = reference.configuration()
    keys = [key.partition(".")[2] for key in valid_keys() if "." in key]
    assert [key for key in keys if f"| `{key}` |" not in text] == []
    assert "| `port` | integer, ≥ 0, ≤ 65535 | `8080` |" in text


def test_a_field_that_is_always_rejected_is_in_no_table():
    assert "| `functions` |" not in reference.http()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 8.0}, "integer, ≥ 1, ≤ 8"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string"),
        ({"type": "array", "items": {"type": "string", "maxLength": 9}}, "list of string"),
        ({"enum": ["a", "b"]}, "`a`, `b`"),
    ],
)
def test_a_schema_reads_as_the_values_it_allows(schema, words):
    assert reference.kind(schema) == words
