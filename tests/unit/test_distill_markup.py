"""A system prompt in any markup is read line by line, and no word is added."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.context import markup, statements
from store.contexts import Context


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Never share:\n- prices\n\n- the owner's phone number\nBe kind to all who ask.",
            [
                "Never share: prices",
                "Never share: the owner's phone number",
                "Be kind to all who ask.",
            ],
        ),
        (
            "Shops:\n- Ely\n  - phone 12\n  - opens at 9\n- Hull\n  - phone 34",
            ["Shops: Ely: phone 12", "Shops: Ely: opens at 9", "Shops: Hull: phone 34"],
        ),
        (
            'End with "Bye!"\n\n- Lamps are tested.\n- Returns take up to 45 days\n  - not lamps',
            [
                'End with "Bye!"',
                "Lamps are tested.",
                "Returns take up to 45 days",
                "Returns take up to 45 days: not lamps",
            ],
        ),
        (
            "Be brief.\n1. Count: one.\n   Then rest.",
            ["Be brief.", "Count: one. Then rest."],
        ),
        (
            "shop:\n  city: Ely\n  hours:\n    monday: 9",
            ["shop: city: Ely", "shop: hours: monday: 9"],
        ),
        (
            "    - Ely\n      - phone 12\n    - Hull\n      - phone 34",
            ["Ely: phone 12", "Hull: phone 34"],
        ),
        (
            "If it fails:\n1. Restart it.\n2. Otherwise:\n   a. Check the cable.\n   b) Call us.",
            [
                "If it fails: Restart it.",
                "If it fails: Otherwise: Check the cable.",
                "If it fails: Otherwise: Call us.",
            ],
        ),
        (
            "<ul>\n<li>Be <b>kind</b>.</li>\n<li>Never swear.</li>\n</ul>",
            ["Be kind.", "Never swear."],
        ),
    ],
)
def test_list_items_include_the_line_that_introduces_them(text, said):
    assert markup.plain_lines(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "| Plan | Price |\n|---|:--|\n| Basic | 9 euros |\n| Pro | 19 euros |",
            ["Plan: Basic; Price: 9 euros", "Plan: Pro; Price: 19 euros"],
        ),
        (
            "| Day | Opens | Closes |\n|---|---|---|\n| Monday | 9 | 5 |\n| Sunday | | 2 |",
            ["Day: Monday; Opens: 9", "Day: Monday; Closes: 5", "Day: Sunday; Closes: 2"],
        ),
        (
            "shop:\n  city: Ely\n  open_from: 7\nnotes: |\n  We are small,\n  and kind.",
            ["shop: city: Ely", "shop: open from: 7", "notes: We are small, and kind."],
        ),
        (
            '{"shop": {"open_from": 7, "vip": true},\n "plans": [{"name": "Pro", "price": 19}]}',
            ["shop open from: 7", "shop vip: true", "plans: name: Pro; price: 19"],
        ),
        (
            'What we know:\n{\n  "shop": {\n    "city": "Ely",\n    "open": 7\n  }\n}\nBe kind.',
            ["What we know: shop: city: Ely", "What we know: shop: open: 7", "Be kind."],
        ),
        (
            "<policy>\n<returns>Within 45 days</returns>\n<hours>\n7 to 9\n</hours>\nBe kind.\n",
            ["policy: returns: Within 45 days", "hours: 7 to 9", "Be kind."],
        ),
    ],
)
def test_values_in_tables_yaml_json_and_xml_include_their_keys(text, said):
    assert markup.plain_lines(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Refunds\n## When\nWithin 30 days.\n# The end", ["When: Within 30 days.", "The end"]),
        (
            "# Handbook\nBe kind.\n## Ely\nOpen at 7.\nThe shop in Ely has two floors and a yard.\n"
            "**Hull**\nOpen at 9.",
            [
                "Be kind.",
                "Ely: Open at 7.",
                "The shop in Ely has two floors and a yard.",
                "Hull: Open at 9.",
            ],
        ),
        (
            "**Fees:**\n- Transfer: 2 euros\n- Card: 10 euros\n\nDo not give legal advice.",
            ["Fees: Transfer: 2 euros", "Fees: Card: 10 euros", "Do not give legal advice."],
        ),
        ("# Kayaks\n## About us\n- Tours start on Thursdays.", ["Tours start on Thursdays."]),
    ],
)
def test_short_lines_include_their_heading_but_not_the_title(text, said):
    assert markup.plain_lines(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "You can return anything that you have bought here within\n45 days.\n\n"
            "- Lamps are tested\n  before they leave.\nOpen: 7\nClosed: 9",
            [
                "You can return anything that you have bought here within 45 days.",
                "Lamps are tested before they leave.",
                "Open: 7",
                "Closed: 9",
            ],
        ),
        (
            "  You help people who want\n  to buy lamps, and never do talk about a man called\n"
            "  Smith.",
            ["You help people who want to buy lamps, and never do talk about a man called Smith."],
        ),
        (
            "You can return anything within 45 days of the day of delivery\n"
            "Delivery is free for all orders above the amount of 70 euros",
            [
                "You can return anything within 45 days of the day of delivery",
                "Delivery is free for all orders above the amount of 70 euros",
            ],
        ),
        ("You are Ivy\n    Open at 7\n    Be kind", ["You are Ivy", "Open at 7", "Be kind"]),
        ("be brief\nnever lie\nprices in euros", ["be brief", "never lie", "prices in euros"]),
        ("return_window: 45 days\ncity: Ely", ["return window: 45 days", "city: Ely"]),
    ],
)
def test_wrapped_lines_are_joined_and_separate_lines_are_not(text, said):
    assert [line.strip() for line in markup.plain_lines(text)] == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'Like this:\n```json\n{"score": 1}\n```\nor:\n```\n{"a": 1}\n```\nNo prose, please.',
            ["No prose, please."],
        ),
        ("```yaml\ncity: Ely\n```\n~~~\nOpen at 7.\n~~~", ["city: Ely", "Open at 7."]),
        ("Never answer with\n```\nBe kind.", ["Never answer with", "Be kind."]),
    ],
)
def test_fenced_code_has_no_statements_and_fenced_text_has(text, said):
    assert markup.plain_lines(text) == said


@pytest.mark.parametrize(
    "said",
    [
        ["Wir öffnen um sieben Uhr morgens.", "Über Mittag ist zu."],
        ["Магазин открывается в семь утра.", "Возврат занимает три дня."],
        ["दुकान सुबह 9 बजे खुलती है।", "वारंटी 6 साल की है।"],
        ["هل المتجر مفتوح؟", "نعم من 9 إلى 5."],
        ["It takes 3 to 5 working days in all, i.e. not long."],
        ["We answer calls (Mon to Fri, 8 a.m. to 6 p.m. CET).", "Parking is free."],
        [
            "The desk opens at 9 a.m. GMT on all days.",
            "It closes in the evening at 6 p.m.",
            "Parking is free.",
        ],
        ["Ask for a form (see the desk. It is on floor 2).", "Parking is free."],
        ["We open on all Mondays (at 7 in the morning.", "Parking is free."],
    ],
)
def test_sentences_are_split_by_the_rules_of_their_script(said):
    assert statements.split_statements(Context(system_prompt=" ".join(said))) == said


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "**" + "a" * 20_000, "- " * 5_000 + "x", "<a>" * 5_000, '{"' * 5_000]
)
def test_deeply_nested_text_is_parsed_without_an_error(text):
    assert isinstance(markup.plain_lines(text), list)


def test_sentences_without_spaces_between_them_are_split():
    assert statements.split_statements(
        Context(system_prompt="我们早上七点开门。退款需要三天。")
    ) == [
        "我们早上七点开门。",
        "退款需要三天。",
    ]


PIECES = [
    "- a b",
    "  - c",
    "Key: d",
    "k: e",
    "# F",
    "| g | h |",
    "|---|---|",
    "```",
    "<rules>",
    "i,",
]
TEXTS = st.lists(st.sampled_from([*PIECES, "", "J is k.", "l m", '  "n": 1,', "{", "**O**"]))


@given(TEXTS.map("\n".join) | st.text(max_size=80))
def test_the_plain_lines_contain_only_words_of_the_text(text):
    known = set(re.findall(r"[^\W_]+", text))

    assert {
        word for line in markup.plain_lines(text) for word in re.findall(r"[^\W_]+", line)
    } <= known


KEYS = st.text("xy", min_size=1, max_size=3)
VALUES = st.recursive(
    st.text("ab ", min_size=1, max_size=5) | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_the_plain_lines_contain_every_value_of_a_json_object(value):
    def leaves(of):
        below = of.values() if isinstance(of, dict) else of if isinstance(of, list) else None
        return [of] if below is None else [leaf for each in below for leaf in leaves(each)]

    said = markup.plain_lines(json.dumps(value))

    text = "\n".join(said)
    assert all(str(leaf) in text or json.dumps(leaf) in text for leaf in leaves(value))
