"""No password in a message, a record or a configuration."""

import pytest

from perfusio_jax._core import ConfigError
from perfusio_jax.twin import redact, refuse_secrets
from perfusio_jax.twin.secrets import in_short


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach opc.tcp://ada:hunter2@rack:4840/x", "opc.tcp://ada:***@rack:4840/x"),
        ("postgresql+psycopg://u:hunter2@h/db failed", "postgresql+psycopg://u:***@h/db"),
        ("login with password=hunter2 refused", "password=***"),
        ("{'smtp_password': 'hunter2'}", "***"),
        ("api_key: hunter2;", "api_key: ***"),
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
