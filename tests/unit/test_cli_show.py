"""`byheart train show` and `adapters show`: one run, one adapter."""

import json

from store import adapters, relapses, statements
from tests.support.factories import NOW, add_lesson, go_live


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
    assert shown["learned"] == ["We ship abroad."]
    relapsed = "We open at nine. (relapsed: A user corrected it.)"
    assert shown["not_learned"] == [relapsed, "We sell lamps."]


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
