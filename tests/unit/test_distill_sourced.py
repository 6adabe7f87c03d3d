"""Each statement of a system prompt knows its words in it, and what it stands beneath."""

import re
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.context.sourced import SourcedStatement, sourced_statements
from distill.context.spans import merged
from store.contexts import Context
from tests.support.cut_prompt import cut
from tests.support.generated_prompts import prompts


def statements_of(prompt: str) -> list[SourcedStatement]:
    return sourced_statements(Context(system_prompt=prompt))


def words(prompt: str, statement: SourcedStatement) -> list[str]:
    return [prompt[start:end] for start, end in statement.spans]


def left_of(prompt: str, *kept: str) -> str:
    """The prompt when only the statements with these texts are kept."""
    return cut(prompt, [each for each in statements_of(prompt) if each.text in kept])


@pytest.mark.parametrize(
    ("prompt", "kept", "left"),
    [
        (
            "- The lamp costs 5 euros each. The desk costs 70 euros.\n- Ask the boss.",
            "The desk costs 70 euros.",
            "- The desk costs 70 euros.",
        ),
        (
            "Lamps cost **5 euros each.** **Desks** cost 70 euros in all. Ask *Ilse*.",
            "Desks cost 70 euros in all.",
            "**Desks** cost 70 euros in all.",
        ),
        (
            "Lamps cost **5 euros each.** **Desks** cost 70 euros in all. Ask *Ilse*.",
            "Lamps cost 5 euros each.",
            "Lamps cost **5 euros each.**",
        ),
        (
            "返品は三十日以内です。**送料**は無料です。**夜は休みです。**朝は開きます。",
            "送料は無料です。",
            "**送料**は無料です。",
        ),
        (
            "返品は三十日以内です。**送料**は無料です。**夜は休みです。**朝は開きます。",
            "夜は休みです。",
            "**夜は休みです。**",
        ),
        (
            "<tone>Be as warm as an oven, always. Never joke with guests.</tone>",
            "Never joke with guests.",
            "<tone> Never joke with guests.</tone>",
        ),
        (
            "We sell lamps in all\nsizes. A lamp in green costs\n5 euros. Chairs are blue.",
            "A lamp in green costs 5 euros.",
            "A lamp in green costs\n5 euros.",
        ),
    ],
)
def test_a_sentence_is_cut_out_of_its_line_with_its_own_markup(prompt, kept, left):
    assert left_of(prompt, kept) == left


@pytest.mark.parametrize(
    ("prompt", "kept", "left"),
    [
        (
            "# Shop\n## Hours\nOpen at 7 each day.\n### Sundays\nClosed.\n## Prices\nLow.",
            ["Sundays: Closed."],
            "# Shop\n## Hours\n### Sundays\nClosed.",
        ),
        (
            "Be kind. Never share:\n1. prices\n   - of lamps\n2. names\nAsk Ilse.",
            ["Be kind. Never share: prices: of lamps"],
            "Be kind. Never share:\n1. prices\n   - of lamps",
        ),
        (
            "RULES:\nBe brief to everybody.\nNever lie.\n\nWe open at 7.",
            ["Never lie.", "We open at 7."],
            "RULES:\nNever lie.\n\nWe open at 7.",
        ),
        (
            "Rules:\n\nBe brief to everybody.\n\nWe open at 7.",
            ["We open at 7."],
            "We open at 7.",
        ),
        (
            "RULES:\nBe brief to everybody.\nFACTS:\nWe open at 7.",
            ["We open at 7."],
            "FACTS:\nWe open at 7.",
        ),
        (
            "Never share:\n- prices\nBe kind to all people.",
            ["Be kind to all people."],
            "Be kind to all people.",
        ),
        (
            "- Lamps are tested before they leave and\n  are green. Never sell:\n    - gas lamps",
            ["Never sell: gas lamps"],
            "- Lamps are tested before they leave and\n  are green. Never sell:\n    - gas lamps",
        ),
        (
            "shop:\n  city: Ely\n  hours:\n    monday: 9\nowner: Ann",
            ["shop: hours: monday: 9"],
            "shop:\n  hours:\n    monday: 9",
        ),
        (
            "<shop>\n<hours>\nOpen at 7.\n</hours>\n<rules>\nBe kind.\n</rules>\n</shop>\nBye bye.",
            ["rules: Be kind."],
            "<shop>\n<rules>\nBe kind.\n</rules>\n</shop>",
        ),
        (
            "## Shop\n<hours>\n# Ely\nOpen at 7.\n</hours>\nBe kind to all people.",
            ["Ely: Open at 7."],
            "## Shop\n<hours>\n# Ely\nOpen at 7.\n</hours>",
        ),
        (
            "## Shop\n<hours>\n# Ely\nOpen at 7.\n</hours>\nBe kind to all people.",
            ["Be kind to all people."],
            "## Shop\nBe kind to all people.",
        ),
        (
            "| Plan | Price |\n|---|---|\n| Pro | 19 euros |\n| Basic | 9 euros |",
            ["Plan: Basic; Price: 9 euros"],
            "| Plan | Price |\n|---|---|\n| Basic | 9 euros |",
        ),
        (
            'Known:\n{\n  "shop": {\n    "city": "Ely",\n    "open": 7\n  },\n  "x": 1\n}\nBye.',
            ["Known: shop: open: 7"],
            'Known:\n{\n  "shop": {\n    "open": 7\n  },\n}',
        ),
        (
            "Write so:\n```\nDear guest,\n\nwe greet you.\n```\nBe kind.",
            ["we greet you."],
            "Write so:\n```\n\nwe greet you.\n```",
        ),
        (
            "- Returns are free.\n  - Lamps must be whole\n- Ask Ilse.",
            ["Lamps must be whole"],
            "- Returns are free.\n  - Lamps must be whole",
        ),
    ],
)
def test_a_statement_stays_beneath_what_it_stood_beneath(prompt, kept, left):
    assert left_of(prompt, *kept) == left


def test_a_list_does_not_end_up_below_the_introduction_of_another():
    prompt = "Never share:\n- prices\n\nBe kind to all people.\n- Lamps are green"

    assert left_of(prompt, "Lamps are green") == "Be kind to all people.\n- Lamps are green"
    assert left_of(prompt.split("\n\n")[1], "Lamps are green") == "- Lamps are green"


@pytest.mark.parametrize(
    ("prompt", "kept", "left"),
    [
        (
            "Cargo bikes cost 35 euros per day. They must be reserved. Helmets are free here.",
            "They must be reserved. Helmets are free here.",
            "Cargo bikes cost 35 euros per day. They must be reserved. Helmets are free here.",
        ),
        (
            "- Lamps are 5 euros. Chairs are sold in\n  pairs. Desks are brown.",
            "Desks are brown.",
            "- Lamps are 5 euros. Chairs are sold in\n  pairs. Desks are brown.",
        ),
    ],
)
def test_a_sentence_keeps_another_that_it_cannot_stand_without(prompt, kept, left):
    assert left_of(prompt, kept) == left


def test_a_row_of_a_table_and_json_on_one_line_are_kept_whole():
    table = "| Day | Opens | Closes |\n|---|---|---|\n| Monday | 9 | 5 |"
    value = '{"city": "Ely", "floors": 2}'

    assert [words(table, each) for each in statements_of(table)] == [["| Monday | 9 | 5 |"]] * 2
    assert [words(value, each) for each in statements_of(value)] == [[value]] * 2


def test_a_leaf_of_json_stands_inside_its_brackets():
    prompt = '{\n "shop": {\n  "city":\n   "Ely",\n  "open": 7\n },\n "lamps": [\n  "red"\n ]\n}'

    assert left_of(prompt, "shop city: Ely") == '{\n "shop": {\n  "city":\n   "Ely",\n },\n}'
    assert left_of(prompt, "lamps: red") == '{\n "lamps": [\n  "red"\n ]\n}'


def test_a_key_that_json_repeats_leaves_all_of_it():
    prompt = '{\n  "city": "Ely",\n  "city": "Hull"\n}'

    assert left_of(prompt, "city: Hull") == prompt


def test_a_pair_of_a_list_of_questions_and_answers_is_a_statement():
    prompt = "# Pool\n## FAQ\n\n**Q:** How deep?\n**A:** 2 metres.\n\n**Q:** Where?\n**A:** In Ely."
    deep, where = statements_of(prompt)

    assert (deep.text, deep.answer) == ("How deep? 2 metres.", "2 metres.")
    assert (deep.is_askable, deep.is_format) == (True, False)
    assert cut(prompt, [where]) == "# Pool\n## FAQ\n\n**Q:** Where?\n**A:** In Ely."


SHOWN = "Sort mail like this:\n\nMail: Hello there!\nLabel: OTHER\n\nMail: Hi there!\nLabel: OTHER"


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        (f"We are a shop.\n{SHOWN}\n\nBe brief.", SHOWN),
        (
            "We sell.\n| Mail | Label |\n|---|---|\n| Hello there! | HI |\n| Oh no! | BYE |\nBye.",
            "| Mail | Label |\n|---|---|\n| Hello there! | HI |\n| Oh no! | BYE |",
        ),
        (
            "Sort.\n<examples>\n<example>\n<mail>Hi!</mail>\n<label>OTHER</label>\n</example>\n"
            "<example>\n<mail>Ho!</mail>\n<label>OTHER</label>\n</example>\n</examples>\nBe kind.",
            "<examples>\n<example>\n<mail>Hi!</mail>\n<label>OTHER</label>\n</example>\n"
            "<example>\n<mail>Ho!</mail>\n<label>OTHER</label>\n</example>\n</examples>",
        ),
        (
            "Sort.\n\n### User\nHi!\n### Assistant\nOTHER\n\n### User\nHo!\n### Assistant\nOTHER",
            "### User\nHi!\n### Assistant\nOTHER\n\n### User\nHo!\n### Assistant\nOTHER",
        ),
    ],
)
def test_examples_that_show_a_format_are_one_statement(prompt, shown):
    [examples] = [each for each in statements_of(prompt) if each.is_format]

    assert not examples.is_askable
    assert cut(prompt, [examples]) == shown


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ('Write so:\n```json\n{"a": 1}\n```\nLamps are red.', 'Write so:\n```json\n{"a": 1}\n```'),
        (
            "# Talk\nVisitor: Who owns this place?\nHost: Ann owns it.",
            "# Talk\nVisitor: Who owns this place?",
        ),
        ("Lamps are red.\n\nIt is so.\n", "It is so."),
        ("Lamps are red.\n\nQuestion:", "Question:"),
        ("# Shop\n\n---\n\n## Nothing\n\n## Role\n<role>\nLamps are red.\n</role>\n***\n<br>", ""),
        ("Lamps are red.\n| Mail | Label |\n|---|---|", "| Mail | Label |"),
    ],
)
def test_what_cannot_be_asked_about_is_listed_and_decoration_is_not(prompt, left):
    statements = statements_of(prompt)

    assert any(each.is_askable for each in statements)
    assert cut(prompt, [each for each in statements if not each.is_askable]) == left


def test_what_a_prompt_repeats_is_one_statement_and_lessons_come_last():
    prompt = "We open at 7 each day.\nLamps are red.\nWe open at 7 each day."
    context = Context(system_prompt=prompt, lessons=("Lamps are red.", "7"))
    first, second, lesson, number = sourced_statements(context)

    assert words(prompt, first) == ["We open at 7 each day."] * 2
    assert second.text == lesson.text
    assert (second.is_lesson, lesson.is_lesson, lesson.spans) == (False, True, ())
    assert (lesson.is_askable, number.is_askable) == (True, False)


@pytest.mark.parametrize(
    "prompt", ["", "\n \n", "---", "{}", "Lamps are red.\r\n\tDesks are blue.\r\n"]
)
def test_a_prompt_of_little_but_space_is_read(prompt):
    texts = [words(prompt, each) for each in statements_of(prompt)]

    assert texts == ([["Lamps are red."], ["Desks are blue."]] if "red" in prompt else [])


@pytest.mark.parametrize(
    "prompt",
    [
        *("[" * 50_000, "**" + "a" * 20_000, "- " * 2_000 + "x", "<tags>\n" * 500),
        *("Lamps are red in our shop. " * 500, "A:\n" * 500, "<b> " * 500 + "Lamps. " * 500),
    ],
)
def test_a_prompt_that_is_made_hard_to_read_is_read(prompt):
    spans = [span for each in statements_of(prompt) for span in (*each.spans, *each.support)]

    assert all(0 <= start < end <= len(prompt) for start, end in spans)


def is_within(span: tuple[int, int], spans: list[tuple[int, int]]) -> bool:
    return any(start <= span[0] and span[1] <= end for start, end in spans)


@given(prompts())
def test_the_words_of_a_prompt_are_shared_out(prompt):
    statements = statements_of(prompt)
    taken = merged(span for each in statements for span in (*each.spans, *each.support))

    assert [each.spans for each in statements] == sorted(each.spans for each in statements)
    for each in statements:
        spans = (*each.spans, *each.support)
        assert all(prompt[start:end].strip() == prompt[start:end] != "" for start, end in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))
    for word in re.finditer(r"\w+", prompt):
        assert is_within(word.span(), taken)


@given(prompts())
def test_words_are_one_statements_own_unless_they_are_in_a_row(prompt):
    for one, other in combinations(statements_of(prompt), 2):
        if one.spans != other.spans or not words(prompt, one)[0].startswith("|"):
            assert len(merged([*one.spans, *other.spans])) == len(one.spans) + len(other.spans)


@given(prompts())
def test_a_statement_is_kept_whole_or_not_at_all(prompt):
    statements = statements_of(prompt)
    for each in statements:
        kept = merged([*each.spans, *each.support])
        for other in statements:
            within = [is_within(span, kept) for span in other.spans]
            apart = all(
                end <= first or last <= start for start, end in other.spans for first, last in kept
            )
            assert all(within) or apart


@given(prompts(), st.data())
def test_what_is_left_of_a_prompt_states_what_was_kept(prompt, data):
    """Exactly that, but for what the words above a sentence and its neighbours decide.

    - A statement whose words stay for the sake of another is stated, too: a row of a table with
      several cells, an item that others are nested in, the sentence that "It ..." refers to.
    - A sentence that has lost those before it in its line may be the one to get the heading or the
      introduction that stands above it.
    - A single question with its answer is no list of them, so all pairs are kept or none.
    """
    statements = statements_of(prompt)
    pairs = [each for each in statements if words(prompt, each)[0].startswith("Q: ")]
    chosen = [each for each in statements if each not in pairs and data.draw(st.booleans())]
    chosen += pairs if data.draw(st.booleans()) else []
    kept = merged(span for each in chosen for span in (*each.spans, *each.support))
    stated = [each.text for each in statements if all(is_within(span, kept) for span in each.spans)]

    again = [each.text for each in statements_of(cut(prompt, chosen))]

    assert {each.text for each in chosen} <= set(stated)
    assert len(again) == len(stated)
    for after, before in zip(again, stated, strict=True):
        assert after == before or after.endswith(f": {before}")


@given(prompts())
def test_the_whole_prompt_is_left_if_all_is_kept(prompt):
    assert cut(prompt, statements_of(prompt)).split() == prompt.split()
