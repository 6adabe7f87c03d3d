"""Statements about the model itself, and instructions on how to answer."""

import pytest

from distill.context import statements


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("You are Ada, the robot of the Blue Door.", "I am Ada, the robot of the Blue Door."),
        ("You are the assistant of a shop.", "I am the assistant of a shop."),
        ("You work for the Blue Door.", "I work for the Blue Door."),
        ("Your name is Ada.", "My name is Ada."),
        ("You are a bot, and your task is to help.", "You are a bot, and your task is to help."),
        ("You are entitled to three days.", "You are entitled to three days."),
        ("You can return it.", "You can return it."),
    ],
)
def test_only_a_statement_of_who_the_model_is_is_put_into_the_first_person(told, said):
    assert statements.in_first_person(told) == said
    introduced = statements.introduction(["We open at 7.", said])
    assert introduced == (said if said != told else None)


@pytest.mark.parametrize(
    ("statement", "only_told"),
    [
        ("Answer in one short sentence.", True),
        ("Begin every answer with a greeting.", True),
        ("Be friendly.", True),
        ("Begin every answer with the name of Petra Olvig.", False),
        ("Use the side door after six.", False),
        ("Never open the oven.", False),
        ("Beds are made at noon.", False),
    ],
)
def test_an_instruction_on_how_to_answer_is_recognised(statement, only_told):
    assert statements.is_instruction(statement) is only_told
