import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.renamed import REMOVED, RENAMED
from config.settings import SECTIONS, ConfigError, Settings, load, valid_keys
from store.db import Database
from store.upgrade import upgrade

DEFAULT = Path("config/default.toml")
EXAMPLES = Path("config/examples")


def write(folder: Path, text: str) -> Path:
    path = folder / "byheart.toml"
    path.write_text(text)
    return path


def test_default_toml_shows_every_key_with_its_default():
    shown = tomllib.loads(DEFAULT.read_text())
    assert Settings.model_validate(shown) == Settings()
    assert {f"{section}.{key}" for section in shown for key in shown[section]} == {
        key for key in valid_keys() if "." in key
    }


def test_default_toml_explains_every_key_in_the_words_of_the_code():
    text = " ".join(line.removeprefix("# ") for line in DEFAULT.read_text().splitlines())
    for section in SECTIONS.values():
        for field in section.model_fields.values():
            assert field.description in text


def test_advanced_settings_are_marked_in_default_toml_and_in_the_schema():
    schema = Settings.model_json_schema()["$defs"]
    text = DEFAULT.read_text()
    for section in SECTIONS.values():
        properties = schema[section.__name__]["properties"]
        marked = {key for key, shown in properties.items() if shown.get("x-advanced")}
        assert marked == section.ADVANCED
        for key, field in section.model_fields.items():
            assert (f"# [advanced] {field.description}" in text) is (key in marked)


def test_the_environment_wins_over_the_file_and_overrides_win_over_both(tmp_path):
    path = write(tmp_path, "[server]\nport = 1\n[distill]\nsteps = 7\nrank = 4\n")
    environ = {"BYHEART_SERVER__PORT": "2", "BYHEART_DISTILL__RANK": "8", "HOME": "/root"}
    settings = load(path, environ, {"server": {"port": 3}})
    assert (settings.server.port, settings.distill.steps, settings.distill.rank) == (3, 7, 8)


@pytest.mark.parametrize("text", ["[1]", "enable_thinking", '"no"'])
def test_arguments_of_the_chat_template_are_an_object_in_json(text):
    with pytest.raises(ConfigError, match=r"engine.chat_template_kwargs"):
        load(environ={"BYHEART_ENGINE__CHAT_TEMPLATE_KWARGS": text})


def test_the_trainer_renders_prompts_as_the_engine_does():
    given = {"BYHEART_ENGINE__CHAT_TEMPLATE_KWARGS": '{"enable_thinking": false}'}

    child = load(environ=load(environ=given).environment())

    assert child.engine.template_arguments == {"enable_thinking": False}


def test_lists_in_the_environment_are_separated_by_commas():
    settings = load(environ={"BYHEART_ENGINE__URLS": "http://a:1,http://b:2"})
    assert settings.engine.urls == ("http://a:1", "http://b:2")


@pytest.mark.parametrize(
    ("key", "near"),
    [("[distill]\nstep = 3", "distill.steps"), ("[sever]\nport = 1", "server")],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest_valid_one(tmp_path, key, near):
    with pytest.raises(ConfigError, match=f"Did you mean '{near}'"):
        load(write(tmp_path, key), {})


@pytest.mark.parametrize(
    ("text", "environ", "names"),
    [
        ("[distill]\nguided_share = 0.5", {}, ("distill.guided_share", "distill.teacher_share")),
        (
            "",
            {"BYHEART_DISTILL__GUIDED_SHARE": "0.5"},
            ("BYHEART_DISTILL__GUIDED_SHARE", "BYHEART_DISTILL__TEACHER_SHARE"),
        ),
    ],
)
def test_a_settings_old_name_is_accepted_with_a_warning_that_names_the_current_one(
    tmp_path, caplog, text, environ, names
):
    settings = load(write(tmp_path, text), environ)

    assert settings.distill.teacher_share == 0.5
    assert all(name in caplog.text for name in names)


def test_the_environment_wins_over_the_file_under_either_name(tmp_path):
    path = write(tmp_path, "[distill]\nteacher_share = 0.5\n")
    settings = load(path, {"BYHEART_DISTILL__GUIDED_SHARE": "0.25"})
    assert settings.distill.teacher_share == 0.25


def test_a_setting_given_under_both_its_names_is_an_error_that_names_both(tmp_path):
    path = write(tmp_path, "[distill]\nguided_share = 0.5\nteacher_share = 0.5\n")
    with pytest.raises(ConfigError, match=r"distill\.guided_share and distill\.teacher_share"):
        load(path, {})


@pytest.mark.parametrize("name", REMOVED["distill"])
def test_an_option_of_the_trainer_alone_is_ignored_with_a_warning(tmp_path, caplog, name):
    settings = load(write(tmp_path, f'[distill]\n{name} = "x"\n'), environ={})
    assert settings.distill == Settings().distill
    assert f"distill.{name} is ignored: it is an option of `python -m distill train`" in caplog.text


def test_every_renamed_setting_exists_under_its_current_name_only():
    for section, names in RENAMED.items():
        fields = SECTIONS[section].model_fields
        assert fields.keys() >= set(names.values())
        assert not fields.keys() & names.keys()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("BYHEART_SERVER_PORT", "BYHEART_SERVER__PORT"),
        ("BYHEART_PORT", "BYHEART_SERVER__PORT"),
        ("BYHEART_DATA_DIR", "BYHEART_STORE__DATA_DIR"),
        ("BYHEART_CONFG", "BYHEART_CONFIG"),
        ("BYHEART_SERVER__PROT", "server.port"),
    ],
)
def test_a_variable_that_is_no_setting_is_an_error_that_names_the_nearest_one(name, near):
    with pytest.raises(ConfigError, match=f"Did you mean '{near}'"):
        load(environ={name: "9"})


def test_the_variable_that_names_the_file_is_no_setting():
    assert load(environ={"BYHEART_CONFIG": "/etc/byheart.toml"}) == Settings()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("", "sqlite:////data/byheart.db"),
        ("sqlite:///own.db", "sqlite:///{here}/own.db"),
        ("sqlite+pysqlite:///own.db?timeout=3", "sqlite+pysqlite:///{here}/own.db?timeout=3"),
        ("sqlite:////srv/own.db", "sqlite:////srv/own.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("postgresql:///byheart?host=/run", "postgresql:///byheart?host=/run"),
    ],
)
def test_the_trainer_is_given_the_database_of_the_daemon_wherever_it_runs(
    monkeypatch, tmp_path, given, url
):
    monkeypatch.chdir(tmp_path)
    settings = load(environ={}, overrides={"store": {"url": given, "data_dir": "/data"}})
    assert settings.environment()["BYHEART_STORE__URL"] == url.format(here=tmp_path)


@pytest.mark.parametrize("text", ["[server]\nport = 70000", "[gate]\nmin_gap_closed = 'much'"])
def test_a_value_out_of_range_is_an_error_that_names_the_key(tmp_path, text):
    with pytest.raises(ConfigError, match=r"server.port|gate.min_gap_closed"):
        load(write(tmp_path, text), {})


def test_an_unreadable_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"byheart\.toml"):
        load(write(tmp_path, "[server"), {})
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load(tmp_path / "missing.toml", {})


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_no_environment_breaks_loading_other_than_with_a_configuration_error(environ):
    named = {f"BYHEART_{key}": value for key, value in environ.items()}
    try:
        load(environ=named)
    except ConfigError as error:
        assert str(error)  # noqa: PT017 — either outcome is right


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Settings().server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(("name", "processes"), [("one_gpu", 1), ("eight_gpus", 4)])
def test_the_examples_for_gpus_load(name, processes):
    chosen = load(EXAMPLES / f"{name}.toml", environ={}).distill

    assert chosen.processes == processes


@pytest.mark.parametrize("name", ["a%41b", "a?b", "a#b c", "ü"])
def test_the_database_is_in_the_data_folder_whatever_it_is_called(tmp_path, name):
    settings = load(environ={}, overrides={"store": {"data_dir": tmp_path / name}})
    database = Database(settings.database_url)
    upgrade(database)
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "byheart.db").exists()
