"""Progress in plain lines: each change is printed once."""

from agent.cli.progress import Lines


def test_a_stage_is_printed_once_at_its_start_and_once_at_its_end(capsys):
    show = Lines()

    for done in (0, 1, 1, 2, 2, 2):
        show("write", done, 2)
    show("train", 2, 2)
    show("train", 2, 2)

    said = [line.split("s  ")[1] for line in capsys.readouterr().out.splitlines()]
    assert said == ["write 0/2", "write 2/2", "train 2/2"]
