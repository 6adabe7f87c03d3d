"""Which statements a correction or a bad rating concerns, by what a support desk hears."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.text.concern import MAX_CHARS, Exchange, contradicted, corrected
from tests.support.cpu_time import max_cpu_s

RETURNS = "Returns are accepted within 45 days."
OPENED = "Opened software is not accepted back after 14 days."
BASIC = "The Basic plan costs 8 euros per month."
TEAM = "The Team plan costs 31 euros per month."
CAT = "A vaccination for a cat costs 42 dollars."
DOG = "A dental cleaning for a dog costs 130 dollars."
FIFTH = "Room 5 opens at 8."
SIXTH = "Room 6 opens at 9."
PHONE = "The phone is answered from 7 to 11."
WAITING = "The waiting room closes at 7:15 pm."
TRIAL = "The free trial lasts 19 days."
DELETED = "Deleted invoices are kept for 60 days."
BLOOD = "Blood test results are ready after three days."
DEPOSIT = "The deposit is 1,500 euros."
RABBITS = "Rabbits are treated by Dr. Okonjo."
FOUNDER = "The clinic was founded in 1974 by Dr. Sunniva Brandt."
STORED = "Data is stored in Tallinn."
BACKUPS = "Backups are stored in Riga."
EXPORT = "Invoices can be exported as PDF and CSV."
MAINTENANCE = "Maintenance takes place on Sundays."
WOOL = "Wool is washed cold."
CARDS = "Gift cards never expire."
PARKING = "Parking is behind the building on Willow Street."
ABROAD = "We do not ship to Norway."
SWEDEN = "We ship to Sweden."
GERMAN = "Die Lieferung dauert 5 Werktage."
SPANISH = "Las devoluciones se aceptan hasta 21 días."
CHINESE = "退货期限是30天。"
CHINESE_PLACE = "数据存储在塔林。"
JAPANESE = "営業時間は10時から18時までです。"
HINDI = "दुकान सुबह 9 बजे खुलती है।"

HELP = "For support, send an email to care@shop.example."
PROMISE = "Never promise a delivery date."
MILL = 'When asked "Where are you?": In the old mill.'
ICELAND = "Parcels to Iceland arrive in 9 days."
CHIPS = "Microchips are implanted on Tuesdays without appointment."

DESK = (
    *(RETURNS, OPENED, BASIC, TEAM, CAT, DOG, FIFTH, SIXTH, PHONE, WAITING, TRIAL, DELETED, BLOOD),
    *(DEPOSIT, RABBITS, FOUNDER, STORED, BACKUPS, EXPORT, MAINTENANCE, WOOL, CARDS, PARKING),
    *(
        ABROAD,
        SWEDEN,
        GERMAN,
        SPANISH,
        CHINESE,
        CHINESE_PLACE,
        JAPANESE,
        HINDI,
        HELP,
        CHIPS,
        PROMISE,
    ),
    *(MILL, ICELAND),
)

HOW_LONG = "How long can I return a lamp?"
CORRECTIONS = {
    "the same words": (HOW_LONG, "30 days.", RETURNS, {RETURNS}),
    "after a verdict": (HOW_LONG, "30 days.", f"No, {RETURNS.lower()}", {RETURNS}),
    "after a whole verdict": (HOW_LONG, "30.", f"That's not right. {RETURNS}", {RETURNS}),
    "a paraphrase": (HOW_LONG, "A month.", "You can return it within 45 days.", {RETURNS}),
    "a number alone": (HOW_LONG, "Within 30 days.", "45", {RETURNS}),
    "a short answer": (HOW_LONG, "Within 30 days.", "No, it is 45 days", {RETURNS}),
    "no comma after the no": (HOW_LONG, "Within 30 days.", "No it is 45 days", {RETURNS}),
    "the wrong number too": (HOW_LONG, "30 days.", "You said 30 days, but it is 45.", {RETURNS}),
    "the wrong number after not": (HOW_LONG, "A month.", "It is 45 days, not 30.", {RETURNS}),
    "not and but": (HOW_LONG, "A month.", "Not 30 but 45 days", {RETURNS}),
    "a spelled-out number": (HOW_LONG, "30 days.", "It is forty-five days.", {RETURNS}),
    "another number is news": (HOW_LONG, "30 days.", "No, it is 60 days.", set()),
    "the opposite": (HOW_LONG, "Always.", "Returns are not accepted within 45 days.", set()),
    "the only one with number and unit": (
        "When do I have to begin to pay?",
        "At once.",
        "No, after 19 days.",
        {TRIAL},
    ),
    "a number without its unit": ("When do I have to begin to pay?", "At once.", "19.", set()),
    "a unit with another number": (
        "When do I have to begin to pay?",
        "At once.",
        "No, after 20 days.",
        set(),
    ),
    "a negated statement": (
        "Can I bring back opened software?",
        "Yes, at any time.",
        "Not after 14 days.",
        {OPENED},
    ),
    "its negation dropped": (
        "Can I bring back opened software?",
        "No.",
        "Opened software is accepted back after 14 days.",
        set(),
    ),
    "one plan of two": ("What does the Team plan cost?", "8 euros.", "No, 31 euros.", {TEAM}),
    "the other plan": (
        "What does the Basic plan cost?",
        "12 euros.",
        "8 euros per month.",
        {BASIC},
    ),
    "a price for the wrong plan": (
        "How much is the Basic plan?",
        "It is free.",
        "The Basic plan costs 31 euros per month.",
        set(),
    ),
    "an animal by the question": ("What is the shot for my cat?", "50 dollars.", "42.", {CAT}),
    "an animal by the answer": (
        "And how much is it then?",
        "A dental cleaning for a dog costs 90 dollars.",
        "No, 130.",
        {DOG},
    ),
    "a room by its number": ("When does room 5 open?", "At 10.", "At 8.", {FIFTH}),
    "a room in the correction": ("When is it open?", "Never.", "Room 6 opens at 9.", {SIXTH}),
    "the wrong room": ("When does room 6 open?", "At 10.", "Room 6 opens at 8.", set()),
    "one end of a range": ("When is the phone answered?", "From 9.", "From 7.", {PHONE}),
    "a range": ("Is the phone answered from 7 to 11?", "No, 9 to 5.", "Yes, 7 to 11.", {PHONE}),
    "a time": ("When does the waiting room close?", "At 8 pm.", "At 7.15 pm!", {WAITING}),
    "a number in words in the statement": (
        "When will I have the blood test results?",
        "Tomorrow.",
        "After 3 days.",
        {BLOOD},
    ),
    "a number in words in both": (
        "When will I have the blood test results?",
        "In a week.",
        "They are ready after three days",
        {BLOOD},
    ),
    "thousands without a comma": ("How much is the deposit?", "500.", "It's 1500 €", {DEPOSIT}),
    "thousands with a point": ("How much is the deposit?", "500.", "1.500 euros", {DEPOSIT}),
    "a name": ("Who looks after rabbits?", "Dr. Meyer.", "No, Dr. Okonjo does.", {RABBITS}),
    "a name in lower case": ("Which vet sees rabbits?", "Meyer.", "it's okonjo", {RABBITS}),
    "a name alone": ("Where is my data stored?", "In Riga.", "Tallinn.", {STORED}),
    "the other name": ("Where are backups stored?", "In Tallinn.", "In Riga.", {BACKUPS}),
    "another name is news": ("Where is my data stored?", "In Riga.", "In Vilnius.", set()),
    "a name in capitals": ("How can I export invoices?", "As XML.", "PDF or CSV", {EXPORT}),
    "the only one with a name": ("Where are your servers?", "In Riga.", "Tallinn.", {STORED}),
    "an address": ("How do I get help?", "You cannot.", "write to care@shop.example", {HELP}),
    "a condition beside the day": (
        "When can my dog get a microchip?",
        "Never.",
        "You can get one on Tuesdays.",
        {CHIPS},
    ),
    "a day": ("When is maintenance?", "On Mondays.", "on sunday", {MAINTENANCE}),
    "a country to which nothing is shipped": (
        "Do you ship to Norway?",
        "Yes, we do.",
        "No, we do not ship to Norway.",
        {ABROAD},
    ),
    "a country wrongly refused": (
        "Do you ship to Sweden?",
        "No, we do not ship to Sweden.",
        "We do ship to Sweden.",
        {SWEDEN},
    ),
    "no number and no name": ("How is wool washed?", "At 60 degrees.", "Cold.", {WOOL}),
    "no number, in a sentence": (
        "How do I wash a wool jumper?",
        "In hot water.",
        "That's wrong, wool is washed cold.",
        {WOOL},
    ),
    "never": ("Until when are gift cards valid?", "For 2 years.", "They never expire!", {CARDS}),
    "never, of what does": ("Do gift cards expire?", "They do.", "They do expire.", set()),
    "a place": ("Where can I park?", "In the street.", "Behind the building", {PARKING}),
    "two facts in one demonstration": (
        "How long can I return things, and what does the Team plan cost?",
        "10 days and 9 euros.",
        "Things can be returned within 45 days. The Team plan costs 31 euros.",
        {RETURNS, TEAM},
    ),
    "two facts in one sentence": (
        "How long can I return things, and what does the Team plan cost?",
        "10 days and 9 euros.",
        "Returns within 45 days, the Team plan costs 31 euros.",
        {RETURNS, TEAM},
    ),
    "of two facts the wrong one": (
        "How long can I return things, and how long is the trial?",
        "Returns within 45 days, and the trial lasts 7 days.",
        "You can return within 45 days. The trial lasts 19 days.",
        {TRIAL},
    ),
    "German": ("Wie lange dauert die Lieferung?", "Zwei.", "Nein, 5 Werktage.", {GERMAN}),
    "Spanish": ("¿Hasta cuándo aceptan devoluciones?", "15 días.", "21 días", {SPANISH}),
    "Chinese": ("退货期限是多久?", "7天。", "不对。是30天。", {CHINESE}),
    "Chinese without a number": ("数据存储在哪里?", "里加。", "在塔林。", {CHINESE_PLACE}),
    "Japanese": ("営業時間を教えてください。", "9時からです。", "10時からです。", {JAPANESE}),
    "Hindi": ("दुकान कब खुलती है?", "10 बजे।", "9 बजे", {HINDI}),
    "a lesson with its question": ("Where are you?", "In Riga.", "In the old mill.", {MILL}),
    "an instruction in other words": (
        "When will it be here?",
        "On Tuesday, for sure!",
        "Do not promise dates.",
        {PROMISE},
    ),
    "another country": ("When do parcels get to Denmark?", "In 4 days.", "In 9 days.", set()),
    "thanks": (HOW_LONG, "Within 45 days.", "Thanks, 45 days it is!", set()),
    "praise": (HOW_LONG, "Within 45 days.", "Great answer, very friendly.", set()),
    "the answer again": (HOW_LONG, "Within 45 days.", "Within 45 days.", set()),
    "a bare verdict": (HOW_LONG, "Within 30 days.", "wrong", set()),
    "a bare no": (HOW_LONG, "Within 30 days.", "No.", set()),
    "something else": ("Tell me a joke.", "Knock, knock.", "Not funny, 2 of 10.", set()),
    "an aside": (HOW_LONG, "30 days.", "I have been a customer since 1974.", set()),
}


@pytest.mark.parametrize(
    ("question", "answer", "correction", "concerned"), CORRECTIONS.values(), ids=CORRECTIONS
)
def test_a_correction_concerns_the_statement_that_it_restates_and_no_other(
    question: str, answer: str, correction: str, concerned: set[str]
) -> None:
    assert corrected(DESK, Exchange.of(question, answer), correction) == concerned


RATED = {
    "a question that the run asked": ("How long may I return a lamp?", "Always.", {RETURNS}),
    "which was answered well": ("How long may I return a lamp?", "45 days.", set()),
    "another number": (
        "What do you charge for cleaning my dog's teeth?",
        "A dental cleaning for a dog costs 90 dollars.",
        {DOG},
    ),
    "a short answer with another number": (
        "How much is a dental cleaning for a dog?",
        "It costs 90 dollars.",
        {DOG},
    ),
    "the right number": ("How much is a dental cleaning for a dog?", "130 dollars.", set()),
    "the number of another plan": (
        "What does the Team plan cost per month?",
        "The Team plan costs 8 euros.",
        {TEAM},
    ),
    "another name": ("Which vet treats rabbits?", "Rabbits are treated by Dr. Meyer.", {RABBITS}),
    "another place": ("Where is the data stored?", "The data is stored in Riga.", {STORED}),
    "the opposite": ("Do gift cards expire?", "Yes, gift cards expire after a while.", {CARDS}),
    "the opposite of a name": ("Do you ship to Norway?", "Yes, we ship to Norway.", {ABROAD}),
    "an answer that is right": ("Do gift cards expire?", "No, gift cards never expire.", set()),
    "another subject": ("How far is the moon?", "The moon is 384,400 kilometres away.", set()),
    "chit-chat": ("Hello!", "Hello, how can I help?", set()),
    "an empty answer": ("How far is the moon?", "", set()),
    "no question": ("", "It costs 90 dollars.", set()),
}
ASKED_FOR = dict.fromkeys(DESK, ()) | {RETURNS: ("How long can I return lamps?",)}


@pytest.mark.parametrize(("question", "answer", "concerned"), RATED.values(), ids=RATED)
def test_a_bad_rating_concerns_what_was_asked_for_or_contradicted(
    question: str, answer: str, concerned: set[str]
) -> None:
    assert contradicted(ASKED_FOR, Exchange.of(question, answer)) == concerned


some_text = (
    st.text()
    | st.sampled_from(DESK)
    | st.lists(
        st.sampled_from(["45", "days", "not", "no", ",", "Team", "plan", "塔林", "one", "."])
    ).map(" ".join)
)


@given(some_text, some_text, some_text)
def test_whatever_is_said_only_known_statements_are_concerned(
    question: str, answer: str, correction: str
) -> None:
    exchange = Exchange.of(question, answer)
    assert corrected(DESK, exchange, correction) <= set(DESK)
    assert contradicted(ASKED_FOR, exchange) <= set(DESK)


@given(st.sampled_from(DESK), some_text, st.text())
def test_a_statement_that_is_repeated_word_for_word_is_concerned(
    statement: str, question: str, answer: str
) -> None:
    assert statement in corrected(DESK, Exchange.of(question, answer), statement)


def test_long_texts_and_many_statements_are_compared_quickly() -> None:
    many = [f"Article {number} costs {number} euros and is blue." for number in range(600)]
    long = "No, article 17 costs 18 euros, not 19. " * 1000
    exchange = Exchange.of(long, f"Article 20. {long}")
    with max_cpu_s(2):
        corrected(many, exchange, long)
        corrected(many, exchange, "It is green " * MAX_CHARS)
        contradicted(dict.fromkeys(many, ["What does it cost?"] * 4), exchange)
