"""`byheart train show` and `adapters show`: one run, one adapter."""

import json

from store import adapters, relapses, statements
from store.adapter_tables import Run
from store.clock import utcnow
from tests.support.factories import (
    NOW,
    add_adapter,
    add_feedback,
    add_lesson,
    go_live,
    record,
    user,
)


def test_train_show_prints_the_trigger_and_the_log_file(db, run):
    with db.begin() as session:
        add_lesson(session, "We open at nine.", "default")
    started = run("train", "now").stdout.strip()
    shown = run("train", "show", started)
    assert shown.exit_code == 0
    assert "requested by the operator" in shown.stdout
    assert f"{started}.log" in shown.stdout


def test_adapters_show_prints_the_lessons_and_the_status_changes(db, run):
    with db.begin() as session:
        add_lesson(session, "We open at nine.", "default")
        name = go_live(session, "default")
    shown = run("adapters", "show", name)
    assert shown.exit_code == 0
    assert "We open at nine." in shown.stdout
    assert "candidate -> live" in shown.stdout


def test_an_adapter_shows_what_it_has_learned_and_what_relapsed(db, run):
    with db.begin() as session:
        for text in ("We open at nine.", "We sell lamps.", "We ship abroad."):
            add_lesson(session, text, "default")
        name = go_live(session, "default", missed=["We sell lamps."])
        first, *_ = statements.of(session, adapters.get_one(session, name))
        relapses.record(session, "default", [first], "A user corrected it.", None, NOW)
    shown = json.loads(run("adapters", "show", name, "-o", "json").stdout)
    known = {each["text"]: (each["internalised"], each["reason"]) for each in shown["statements"]}
    assert known == {
        "We open at nine.": (False, "relapsed: A user corrected it."),
        "We sell lamps.": (False, "not learned"),
        "We ship abroad.": (True, ""),
    }
    lines = run("adapters", "show", name).stdout
    assert "internalised   We ship abroad." in lines
    assert "in the prompt  We open at nine. (relapsed: A user corrected it.)" in lines


def test_a_run_shows_its_frontier_and_how_many_statements_it_has_taught(db, run):
    with db.begin() as session:
        for text in ("We open at nine.", "We sell lamps."):
            add_lesson(session, text, "default")
        frontier = [{"context": "residual", "prompt_tokens": 8, "right": 3, "total": 4}]
        adapter = add_adapter(session, "default", missed=["We sell lamps."], frontier=frontier)
        trained = adapter.run
        session.get_one(Run, trained).adapter = adapter.name
    shown = json.loads(run("train", "show", trained, "-o", "json").stdout)
    assert (shown["statements"], shown["frontier"]) == ({"learned": 1, "total": 2}, frontier)
    lines = run("train", "show", trained).stdout
    assert "1 of 2 learned" in lines
    assert "residual: 3 of 4 right, 8 prompt tokens" in lines


def test_a_lesson_and_an_answer_show_the_relapses_and_their_causes(db, run):
    with db.begin() as session:
        lesson = add_lesson(session, "Lamps cost 15 euros.", "default").id
        names, answers = [], []
        for _ in range(statements.RELAPSE_LIMIT):
            names.append(go_live(session, "default"))
            texts = {"messages": [user("What does a lamp cost?")], "response": "9 euros."}
            answers.append(record(session, namespace="default", version=names[-1], **texts).id)
            add_feedback(session, answers[-1], "default", comment="No, 15 euros.", at=utcnow())
        unlearned = record(session, namespace="default", version=names[-1], created_at=utcnow()).id
    shown = json.loads(run("lessons", "show", lesson, "-o", "json").stdout)
    assert shown["learnable"] is False
    story = [(each["adapter"], each["relapse_interaction"]) for each in shown["adapters"]]
    assert story == list(zip(names, answers, strict=True))
    assert {each["relapse_cause"] for each in shown["adapters"]} == {"local corrected the answer."}
    assert (
        "not learnable by this base: stays in the prompt" in run("lessons", "show", lesson).stdout
    )

    for answer in answers:
        why = json.loads(run("why", answer, "-o", "json").stdout)
        assert why["internalised"] == [relapse["text"] for relapse in why["relapses"]]
        assert why["relapses"][0]["text"] == "Lamps cost 15 euros."
    assert "Lamps cost 15 euros. (local corrected the answer.)" in run("why", answer).stdout
    why = json.loads(run("why", unlearned, "-o", "json").stdout)
    assert (why["internalised"], why["relapses"]) == ([], [])


def test_the_table_has_the_numbers_of_an_evaluation_and_json_also_its_answers(db, run):
    with db.begin() as session:
        add_lesson(session, "We open at nine.", "default")
        name = go_live(session, "default")
        answers = [{"prompt": "When?", "candidate": "At nine."}]
        adapters.evaluation(session, name).measured = {"gap_closed": 0.58283, "answers": answers}

    table = run("adapters", "show", name).stdout
    assert "gap closed 0.583" in table
    assert "At nine." not in table
    shown = json.loads(run("adapters", "show", name, "-o", "json").stdout)
    assert shown["measured"]["answers"] == answers
