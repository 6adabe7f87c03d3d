"""A named value becomes a sentence only if the sentence says all of it and nothing else."""

from dataclasses import dataclass

import pytest

from distill.data.verbalise import DRAFTS, best_of, is_faithful, verbalise
from tests.support.tiny import tiny_tokenizer

DEPOSIT = "rentals: deposit for bikes: 80 euros"


@pytest.mark.parametrize(
    ("sentence", "faithful"),
    [
        ("The deposit for bikes is 80 euros.", True),
        ("The deposit is 80 Euros.", True),
        ("The deposit is 80.", False),
        ("The deposit is 80 euros for 3 days.", False),
        ("For 80 euros.", False),
        ("The deposit is 80 euros", False),
        ("The deposit for bikes at the museum is 80 euros.", False),
    ],
)
def test_a_faithful_sentence_has_all_values_a_name_and_nothing_from_the_few_shot_examples(
    sentence, faithful
):
    assert is_faithful(sentence, DEPOSIT) == faithful


def test_a_faithful_sentence_has_every_value_of_a_row():
    row = "Plan: Basic; Price: 9 euros"

    assert is_faithful("The price of the Basic plan is 9 euros.", row)
    assert not is_faithful("The price of the plan is 9 euros.", row)
    assert not is_faithful("A basic plan is to have 9 euros.", row)


def test_the_faithful_draft_with_most_names_is_chosen():
    drafts = ["No.", "The deposit is 80 euros.", "The deposit for bikes is 80 euros."]

    assert best_of(drafts, DEPOSIT) == drafts[2]
    assert best_of(drafts[:1], DEPOSIT) is None


@dataclass
class Scripted:
    """Says the same of each statement in the first draft, and nothing in later ones."""

    said: dict[str, str]

    def for_stage(self, _stage, **_changes):
        return self

    def sample(self, prompts, temperature):
        tokenizer = tiny_tokenizer()
        texts = [tokenizer.decode(ids).rsplit("List: ", 1)[1].split("\n")[0] for ids in prompts]
        assert len(prompts) == len(self.said) * (1 if temperature == 0 else DRAFTS)
        lines = [self.said[text] if temperature == 0 else "Nothing." for text in texts]
        return [tokenizer(line)["input_ids"] for line in lines]


def test_sentences_and_statements_without_a_faithful_draft_stay_as_they_are():
    sampler = Scripted({DEPOSIT: " The deposit is 80 euros.", "owner: Ann Lee": " It is Bo."})

    found = verbalise(sampler, tiny_tokenizer(), [DEPOSIT, "We open at 7.", "owner: Ann Lee"])

    assert found == {DEPOSIT: "The deposit is 80 euros."}


def test_a_context_of_sentences_needs_no_drafts():
    assert verbalise(Scripted({}), tiny_tokenizer(), ["We open at 7."]) == {}
