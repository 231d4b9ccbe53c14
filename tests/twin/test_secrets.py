"""No password in a message, a record or a configuration."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfusio_jax._core import ConfigError
from perfusio_jax.twin import AuditLogger, redact, refuse_secrets
from perfusio_jax.twin.records.secrets import has_secret, in_short
from perfusio_jax.twin.records.trail_files import CSV_NAME, LOG_NAME, PARQUET_NAME


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach opc.tcp://ada:hunter2@rack:4840/x", "opc.tcp://ada:***@rack:4840/x"),
        ("postgresql+psycopg://u:hunter2@h/db failed", "postgresql+psycopg://u:***@h/db"),
        ("login with password=hunter2 refused", "password=***"),
        ("{'smtp_password': 'hunter2'}", "***"),
        ("api_key: hunter2;", "api_key: ***"),
        ("at opc.tcp://ada:hun/ter2@rack:4840/x", "opc.tcp://ada:***@rack:4840/x"),
        ("at opc.tcp://ada:h:u?nter2@rack:4840/x", "at opc.tcp://***"),
        ("at opc.tcp://rack:4840/x?pw=hunter2&a=hunter2", "opc.tcp://rack:4840/x?pw=***&a=***"),
        ("at opc.tcp://rack:4840/x?pw=a@hunter2", "at opc.tcp://***"),
        ("https://h/p#token=hunter2", "https://h/p#token=***"),
        ("password='hunter2, hunter2'", "password=***"),
        ("db_pass=hunter2", "db_pass=***"),
        ("Authorization: Bearer hunter2", "Bearer ***"),
    ],
)
def test_what_looks_like_a_password_is_taken_out(text, shown):
    assert shown in redact(text) and "hunter2" not in redact(text)


def test_the_value_of_a_secret_variable_is_taken_out_wherever_it_stands(monkeypatch):
    monkeypatch.setenv("PERFUSIO_OPCUA_PASSWORD", "correct horse")
    monkeypatch.setenv("PERFUSIO_SLACK_WEBHOOK_URL", "https://hooks.example/T1/B2")
    text = "server said: correct horse is wrong at https://hooks.example/T1/B2"
    assert redact(text) == "server said: *** is wrong at ***"
    assert in_short(ValueError(f"two\nlines {text}")) == "two lines " + redact(text)
    assert in_short(TimeoutError()) == "TimeoutError"
    assert len(in_short(ValueError("x" * 9999))) == 500


@pytest.mark.parametrize(
    "table",
    [
        {"twin": {"password": "hunter2"}},
        {"twin": {"url": "opc.tcp://ada:hunter2@rack:4840"}},
        {"alarms": {"smtp": {"smtp_passwd": "hunter2"}}},
        {"twin": {"reactors": [{"api_key": "hunter2"}]}},
        {"twin": {"urls": ["sqlite://x", "postgresql://a:hunter2@h/d"]}},
        {"alarms": {"slack_webhook": "https://hunter2"}},
        {"x": {"auth_token": "hunter2"}},
        {"twin": {"url": "opc.tcp://ada:hun/ter2@rack:4840"}},
        {"twin": {"url": "opc.tcp://ada:hunter 2@rack:4840"}},
        {"twin": {"url": "opc.tcp://rack:4840/x?pw=hunter2"}},
        {"twin": {"archive": "postgresql://h/db?password=hunter2"}},
        {"twin": {"pw": "hunter2"}},
        {"twin": {"url": "opc.tcp://ada:hunter2 at://x@rack"}},
        {"twin": {"url": "opc.tcp://ada@lab.org:hunter2@rack"}},
    ],
)
def test_a_configuration_with_a_secret_is_refused_and_the_secret_not_shown(table):
    with pytest.raises(ConfigError, match="holds a secret") as caught:
        refuse_secrets(table)
    assert "hunter2" not in str(caught.value) and "." in str(caught.value)


def test_what_only_names_a_secret_is_allowed():
    refuse_secrets(
        {
            "twin": {
                "password_env": "PERFUSIO_DB",
                "private_key_path": "key.pem",
                "url": "opc.tcp://rack:4840",
                "password": "",
                "username": "ada",
                "signing_key": "key",
            }
        }
    )


@pytest.mark.parametrize("name", ["PGPASSWORD", "PERFUSIO_OPCUA_PASSWORD"])
def test_the_value_of_a_password_variable_reaches_no_record(monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "kl/ee blatt#7")
    assert redact("kl/ee blatt#7 kl%2Fee%20blatt%237 kl/ee%20blatt%237") == "*** *** ***"
    with pytest.raises(ConfigError, match="reactors holds a secret"):
        refuse_secrets({"twin": {"reactors": ["R1 kl/ee blatt#7"]}})
    with AuditLogger(tmp_path, "run") as audit:
        audit.log("X", {"a": ["kl/ee blatt#7"], "b": 1.5}, reason="kl/ee blatt#7", old={"n": "b#7"})
        audit.log("Y", {"url": "opc.tcp://u:hun/ter2@h"}, day=2)
    for file in (LOG_NAME, CSV_NAME, PARQUET_NAME):
        content = (tmp_path / file).read_bytes()
        assert b"blatt" not in content and b"ter2" not in content
    first = json.loads((tmp_path / LOG_NAME).read_bytes().splitlines()[0])
    assert first["payload"] == {"a": ["***"], "b": 1.5} and first["old"] == {"n": "b#7"}


@settings(max_examples=150, derandomize=True)
@given(
    secret=st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=4),
    host=st.sampled_from(["rack:4840", "[::1]:4840", "h.example/p/q"]),
)
def test_no_password_in_an_address_is_shown_or_accepted(secret, host):
    address = f"opc.tcp://ada:x{secret}y@{host}"
    hidden = "***" if set(secret) & set("?#") else f"ada:***@{host}"  # may be a query's end, too
    assert redact(f"no answer from {address} in time") == (
        f"no answer from opc.tcp://{hidden} in time"
    )
    assert has_secret(address) and not has_secret(f"opc.tcp://ada@{host}")


def test_an_address_without_a_secret_stays_and_may_be_configured():
    for text in (
        "opc.tcp://rack:4840/x",
        "opc.tcp://XAVER@rack",
        "postgresql://ada@h:5433/db",
        "see https://x.org/a:b.",
    ):
        assert redact(text) == text
        refuse_secrets({"url": text})
    refuse_secrets({"url": "postgresql://ada@h/db?sslmode=require"})
    refuse_secrets({"note": "see https://x.org, or write to: ada@x.org"})  # words, not one address


_HARD = ("x", "a.", "a://b:", "?a=", "?", "pass", "password", "secret='", '"', "=", " ", "bearer ")


@pytest.mark.timeout(120)  # seconds are enough; what tries a letter twice for each takes hours
@pytest.mark.parametrize("part", _HARD)
def test_a_megabyte_of_anything_takes_a_time_in_proportion(part):
    text = part * (1_000_000 // len(part))
    assert len(in_short(ValueError(text))) <= 500
    assert redact(text) and has_secret(text) is has_secret(text + " ")
    for table in ({"a": text}, {text: "a"}):
        try:
            refuse_secrets(table)
        except ConfigError as error:
            assert len(str(error)) < 1000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("opc.tcp://ada:hun://ter2@rack", "opc.tcp://ada:***@rack"),
        ("opc.tcp://ada/x:hunter2@rack", "opc.tcp://***@rack"),
        ("opc.tcp://hunter2/x@rack", "opc.tcp://***@rack"),
        ("opc.tcp://ada@rack", "opc.tcp://ada@rack"),
    ],
)
def test_an_address_is_rebuilt_without_what_may_be_a_password(text, shown):
    assert redact(text) == shown


def test_a_short_secret_is_one_alone_and_a_long_one_wherever_it_stands(monkeypatch):
    def is_refused(value: str) -> bool:
        try:
            refuse_secrets({"twin": {"reactor_id": value}})
        except ConfigError:
            return True
        return False

    monkeypatch.setenv("PGPASSWORD", "rackpas")  # seven letters, as in many a word
    assert is_refused("rackpas") and not is_refused("a rackpas b") and not is_refused("R1")
    monkeypatch.setenv("PGPASSWORD", "rackpass")
    assert is_refused("rackpass") and is_refused("a rackpass b") and not is_refused("R1")


@pytest.mark.parametrize(
    ("table", "where", "place"),
    [
        ({"password": "hunter2"}, "", "password"),
        ({"password": "hunter2"}, "alarms", "alarms.password"),
        ({"twin": {"reactors": [{"x": 1, "api_key": "hunter2"}]}}, "", "twin.reactors.api_key"),
        ({"alarms": {"smtp": {"password": "hunter2"}}}, "run", "run.alarms.smtp.password"),
        # what stands before and after it is looked at as well
        ({"a": {"password": "hunter2"}, "b": {"c": "d"}}, "", "a.password"),
        ({"a": {"password": "hunter2"}, "b": ["c", {"d": "e"}]}, "", "a.password"),
        ({"a": {"c": "d"}, "b": ["c"], "e": {"password": "hunter2"}}, "", "e.password"),
    ],
)
def test_the_place_of_a_secret_is_named_from_the_top_and_what_to_do_about_it(table, where, place):
    with pytest.raises(ConfigError) as caught:
        refuse_secrets(table, where) if where else refuse_secrets(table)
    assert str(caught.value) == (
        f"{place} holds a secret; a configuration file may not. Put it into an environment "
        "variable and name that variable (see docs/twin.md)."
    )


@pytest.mark.parametrize("ending", ["_env", "_path"])
@pytest.mark.parametrize("name", ["slack_webhook", "client_secret", "api_key", "credentials"])
def test_a_name_that_says_where_the_secret_is_may_stand_and_no_other_ending(name, ending):
    refuse_secrets({"twin": {name + ending: "here"}})
    for other in (name, name + ending.upper(), name + ending + "s"):
        with pytest.raises(ConfigError, match=f"twin.{other} holds a secret"):
            refuse_secrets({"twin": {other: "here"}})


def test_a_secret_that_holds_another_is_taken_out_whole_and_four_letters_are_one(monkeypatch):
    monkeypatch.setenv("PERFUSIO_A_PASSWORD", "horse")
    monkeypatch.setenv("PERFUSIO_B_PASSWORD", "battery horse")
    monkeypatch.setenv("PERFUSIO_C_PASSWORD", "abcd")
    monkeypatch.setenv("PERFUSIO_D_PASSWORD", "xyz")  # in half of all words
    assert redact("a battery horse, a horse: abcd xyz") == "a ***, a ***: *** xyz"
    assert redact("Authorization: Bearer hunter2 now") == "Authorization: Bearer *** now"
