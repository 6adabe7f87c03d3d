"""Examples are found where a prompt shows pairs of message and answer, and nowhere else."""

import json
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distill.context import statements
from distill.context.examples import Example, split, split_lines
from distill.data.collect import statement_answers
from store.contexts import Context

PARCEL = Example("Where is my parcel?", "DELIVERY")
TWICE = Example("I paid twice.", "BILLING")


@pytest.mark.parametrize(
    "text",
    [
        "User: Where is my parcel?\nAssistant: DELIVERY\nUser: I paid twice.\nAssistant: BILLING",
        "Q: Where is my parcel?\n\nA: DELIVERY\n\nQ: I paid twice.\n\nA: BILLING",
        "**Tweet:** Where is my parcel?\n**Sentiment:** DELIVERY\n\n**Tweet:** I paid twice.\n"
        "**Sentiment:** BILLING",
        "- Input 1: Where is my parcel?\n- Output 1: DELIVERY\n- Input 2: I paid twice.\n"
        "- Output 2: BILLING",
        'Kunde: "Where is my parcel?"\nAntwort: DELIVERY\nKunde: "I paid twice."\nAntwort: BILLING',
        "User: Where is my parcel?\nQueue: DELIVERY\nUser: I paid twice.\nQueue: BILLING",
        "### User\nWhere is my parcel?\n### Assistant\n\nDELIVERY\n\n### User\nI paid twice.\n"
        "### Assistant\nBILLING",
        "**User**\nWhere is my parcel?\n**Assistant**\nDELIVERY\n**User**\nI paid twice.\n"
        "**Assistant**\nBILLING",
        "<example><input>Where is my parcel?</input><output>DELIVERY</output></example>\n"
        "<example><input>I paid twice.</input><output>BILLING</output></example>",
        "<examples>\n<example>\n<mail>Where is my parcel?</mail>\n<team>\nDELIVERY\n</team>\n"
        '</example>\n<example id="2"><mail>I paid twice.</mail><team>BILLING</team></example>\n'
        "</examples>",
        "<input>\nWhere is my parcel?\n</input>\n<output>\nDELIVERY\n</output>\n"
        "<input>I paid twice.</input>\n<output>BILLING</output>",
        '{"input": "Where is my parcel?", "output": "DELIVERY"},\n'
        '{"input": "I paid twice.", "output": "BILLING"}',
        "- message: Where is my parcel?\n  label: DELIVERY\n- message: I paid twice.\n"
        "  label: BILLING",
        "用户：Where is my parcel?\n助手：DELIVERY\n用户：I paid twice.\n助手：BILLING",  # noqa: RUF001
        "Text:\nWhere is my parcel?\nClassification:\nDELIVERY\n\nText:\nI paid twice.\n"
        "Classification:\nBILLING",
    ],
)
def test_pairs_with_the_same_two_labels_are_examples(text):
    found, rest = split(f"Sort messages.\n{text}\n\nBe brief.")

    assert found == [PARCEL, TWICE]
    assert rest.split() == ["Sort", "messages.", "Be", "brief."]


def test_rows_of_a_table_with_an_answer_column_are_examples():
    table = "| Message | Label |\n|---|---|\n| Where is my parcel? | DELIVERY |"

    found, rest = split(f"Sort.\n{table}\n| I paid twice. | BILLING |\nBe brief.")

    assert found == [PARCEL, TWICE]
    assert rest == "Sort.\n| Message | Label |\n|---|---|\nBe brief."


def test_pairs_with_unknown_labels_are_examples_from_three_pairs_on():
    two = "Ticket: Where is my parcel?\nTeam: DELIVERY\n\nTicket: I paid it twice.\nTeam: BILLING"

    assert split(two) == ([], two)
    assert [each.answer for each in split(f"{two}\nTicket: Are you there?\nTeam: OTHER")[0]] == [
        "DELIVERY",
        "BILLING",
        "OTHER",
    ]


GRANDMA = "User: Why do leaves fall?\nGrandma: They are tired, dear.\n\n"


def test_a_label_that_always_follows_the_users_marks_answers():
    text = "Speak as Grandma.\n\n" + GRANDMA + GRANDMA.replace("leaves", "apples")
    shown, rest = split(text)
    assert [each.answer for each in shown] == ["They are tired, dear."] * 2
    assert rest.strip() == "Speak as Grandma."
    broken = text + "Grandma: Bless you.\n"
    assert split(broken)[0] == []


def test_a_single_word_is_a_prompt_only_before_a_known_answer_label():
    text = "".join(f"Word: w{number}\nAnswer: animal\n\n" for number in "abc")
    assert len(split(text)[0]) == 3
    assert split(text.replace("Answer", "Category"))[0] == []


def test_a_question_in_a_dialogue_is_not_a_statement():
    context = Context("The shop is open.\n\nLodger: Who owns this place?\nHost: Ann does.")
    assert not [said for said in statements.split_statements(context) if said.endswith("?")]


def test_an_example_tag_without_a_pair_stays_in_the_text():
    framed = "<example><a>one b</a><b>two</b></example>"
    plain = "<example>Be nice.</example>"

    assert split(f"{framed}\n{plain}\n{framed}") == ([Example("one b", "two")] * 2, f"\n{plain}\n")


def test_a_prompt_in_a_json_object_may_have_several_lines():
    line = json.dumps({"input": "one\ntwo", "output": {"n": 2}})

    assert split(f"{line}\n{line}")[0] == [Example("one\ntwo", '{"n": 2}')] * 2


@pytest.mark.parametrize("text", ["[" * 9_999, "{" * 9_999, "<a>" * 3_000, "<example>" * 3_000])
def test_deeply_nested_text_is_parsed_without_an_error(text):
    assert split(text) == ([], text)


def test_an_answer_may_have_several_lines():
    text = 'Input: one\nOutput: {\n  "a": 1\n}\nInput: two\nOutput: {}\n\nNo prose.'

    assert split(text) == (
        [Example("one", '{\n  "a": 1\n}'), Example("two", "{}")],
        "\nNo prose.",
    )


def test_a_pair_with_an_empty_answer_is_not_an_example():
    assert split("Q: one\nA:\n\nQ: two\nA: 2")[0] == [Example("two", "2")]


def test_three_lines_with_arrows_are_examples_and_two_are_not():
    two = "Where is my parcel? -> DELIVERY\nExample 2: 'I paid twice.' => BILLING"

    assert split(two) == ([], two)
    assert split(f"{two}\nHi -> OTHER")[0] == [PARCEL, TWICE, Example("Hi", "OTHER")]


def test_a_label_before_every_arrow_is_not_part_of_the_prompts():
    text = "Ticket: I paid twice. -> BILLING\nTicket: Hi -> OTHER\nTicket: Where is it? -> DELIVERY"

    assert [each.prompt for each in split(text)[0]] == ["I paid twice.", "Hi", "Where is it?"]


@pytest.mark.parametrize(
    "text",
    [
        "Opening hours:\nMonday: 9 to 5\nTuesday: 10 to 6",
        "Email: help@acme.com\nPhone: 555\nEmail: sales@acme.com\nPhone: 556",
        "Question: see the list first.\nAnswer: below",
        "Phone: 123\nResponse: within two days\nPhone: 124\nResponse: within a week",
        "User: Ann\nRole: admin\nUser: Bo\nRole: guest",
        "Name: Ann\nCity: Ely\nName: Bo\nCity: Hull\nName: Cy\nCity: York",
        "Plan: Basic for small teams\nPrice: 9 euros\nPlan: Pro for large teams\n"
        "Price: 19 euros\nPlan: Max for all the others\nPrice: 99 euros",
        "| Plan | Price |\n|---|---|\n| Basic | 9 |\n| Pro | 19 |",
        "To cancel: Settings -> Billing -> Cancel.\nSettings -> Account\nA -> B -> C",
    ],
)
def test_other_lines_with_colons_or_arrows_are_not_examples(text):
    assert split(text) == ([], text)


LINES = st.lists(
    st.sampled_from(
        [
            *["Q: a", "A: b", "User: c", "{d}", "answer: e", "", "-> f", "### User", "# Answer"],
            *["<example><x>a</x><y>b</y></example>", "<example>", "</example>", "<y>c</y>"],
            *["<input>g</input>", "<output>h</output>", "<input>", "</input>", "| q | a |"],
            *["| i | j |", '{"input": "k l", "output": 1}', "Team: m", "Ticket: n o p q"],
        ]
    )
)


@example("#USER\nA:\n#USER\nA:")
@given(st.text(alphabet="UAn: \n->?ab", max_size=80) | st.text(max_size=60) | LINES.map("\n".join))
def test_the_rest_contains_only_lines_of_the_text(text):
    found, rest = split(text)

    assert rest == text or found
    assert not Counter(filter(None, rest.split("\n"))) - Counter(text.split("\n"))


@given(LINES.map("\n".join))
def test_an_example_stands_on_lines_of_the_text_that_are_not_in_the_rest(text):
    lines = text.split("\n")
    found, rest = split_lines(text)
    left = {number for number, line in rest if line}

    assert all(line in ("", lines[number]) for number, line in rest)
    for each in found:
        assert each.numbers
        assert not left & set(each.numbers)
        shown = " ".join(lines[number] for number in each.numbers)
        assert all(
            word in shown for word in f"{each.prompt} {each.answer}".split() if word.isalpha()
        )


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Hi.\nQ: one\ntwo\n\nA: 2\n\nQ: three\nA: 3", [(1, 2, 4), (6, 7)]),
        (
            "| Message | Label |\n|---|---|\n| Where is it? | RED |\n| Hi there! | BLUE |",
            [(2,), (3,)],
        ),
        ("<input>\nd\n</input>\n<output>e</output>\n\n" * 2, [(0, 1, 2, 3), (5, 6, 7, 8)]),
        ("<example>\n<a>b</a>\n<c>d</c>\n</example>\n" * 2, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("a -> b\nSee below.\nc -> d\ne -> f", [(0,), (2,), (3,)]),
    ],
)
def test_an_example_knows_its_lines(text, numbers):
    assert [each.numbers for each in split_lines(text)[0]] == numbers


def test_unlabelled_answers_are_examples_if_two_follow_labelled_prompts():
    text = 'User: two cups\n{"count": 2}\n\nUser: a lamp\n{"count": 1}\n\nNo prose.'

    assert split(text) == (
        [Example("two cups", '{"count": 2}'), Example("a lamp", '{"count": 1}')],
        "\n\nNo prose.",
    )
    assert split("User: see below\nThe list.\nUser: Admin: both.")[0] == []


@pytest.mark.parametrize(
    ("text", "about"),
    [
        (
            "Q: When do you open?\nA: At seven o'clock.\nQ: Where?\nA: In Ely.",
            {
                "When do you open? At seven o'clock.": "At seven o'clock.",
                "Where? In Ely.": "In Ely.",
            },
        ),
        ("Q: two cups\nA: [2]\nQ: a lamp\nA: [1]", {}),
        ("Q: Where is it?\nA: OTHER\nQ: Am I poor?\nA: BILLING\nQ: Hi?\nA: OTHER", {}),
    ],
)
def test_examples_of_content_are_statements_and_examples_of_a_format_are_not(text, about):
    context = Context(system_prompt=f"We are a shop.\n{text}")

    assert statement_answers(context) == {"We are a shop.": "We are a shop.", **about}
