"""`byheart train show` and `adapters show`: one run, one adapter."""

import json

from store import adapters
from tests.support.factories import add_lesson, go_live


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
