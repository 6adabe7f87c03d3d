"""Progress in plain lines says what is news, once."""

from agent.cli.progress import Lines


def test_a_stage_is_said_when_it_begins_and_when_it_ends_however_often_it_is_looked_at(capsys):
    show = Lines()

    for done in (0, 1, 1, 2, 2, 2):
        show("write", done, 2)
    show("train", 2, 2)
    show("train", 2, 2)

    said = [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["write 0/2", "write 2/2", "train 2/2"]
