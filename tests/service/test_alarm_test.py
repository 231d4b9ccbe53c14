"""`alarm-test`, the channels of `[alarms]`, and the page on them."""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perfusio_jax._core import ConfigError
from perfusio_jax.cli import app
from perfusio_jax.config import AlarmConfig
from perfusio_jax.service.alarm_test import send_test_alarm
from perfusio_jax.service.described_settings import ALARMS
from perfusio_jax.service.plan import read_plan
from perfusio_jax.twin.alarms import channels
from perfusio_jax.twin.alarms.events import AlarmEvent

PAGE = Path(__file__).parents[2] / "docs" / "alarms.md"
CONFIG = """
[twin]
source = "samples.csv"
reactors = ["BR01", "BR02"]
startup_days = 3

[alarms]
"""


def configured(folder, alarms):
    (folder / "samples.csv").write_text("day,reactor_id,VCD\n0,BR01,1\n0,BR02,1\n")
    place = folder / "twin.toml"
    place.write_text(CONFIG + alarms)
    return place


def test_every_channel_is_tried_and_told(tmp_path):
    place = configured(tmp_path, 'notification_channel = ["file"]\nalarm_file = "alarms.jsonl"\n')
    said = []
    assert send_test_alarm(place, say=said.append)
    assert said == ["log: delivered", "file: delivered"]
    (line,) = (tmp_path / "alarms.jsonl").read_text().splitlines()
    sent = json.loads(line)
    assert "BR01, BR02" in sent["message"] and "nothing has happened" in sent["message"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "alarms.jsonl",
        "samples.csv",
        "twin.toml",
    ]


def test_a_channel_that_does_not_take_it_is_exit_code_4(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PERFUSIO_WEBHOOK_URL", "http://127.0.0.1:1/s3cret")
    place = configured(tmp_path, 'notification_channel = "webhook"\n')
    result = CliRunner().invoke(app, ["alarm-test", str(place)])
    assert result.exit_code == 4
    assert "webhook: not delivered" in result.output and "s3cret" not in result.output
    only = CliRunner().invoke(app, ["alarm-test", str(tmp_path), "--channel", "log"])
    assert only.exit_code == 0 and only.output.endswith("log: delivered\n")


@pytest.mark.parametrize(
    ("channel", "words"),
    [("file", "alarm_file"), ("email", "PERFUSIO_SMTP_HOST"), ("pigeon", "allowed are log, file")],
)
def test_a_channel_without_its_settings_is_refused(tmp_path, monkeypatch, channel, words):
    for name in [n for n in os.environ if n.startswith("PERFUSIO_SMTP")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=words):
        send_test_alarm(configured(tmp_path, ""), [channel], say=print)


def test_the_file_of_alarms_lies_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    place = configured(tmp_path, 'notification_channel = "file"\nalarm_file = "a/alarms.jsonl"\n')
    plan = read_plan(place)
    assert plan.parts.alarms.channels == ("file",)
    (tmp_path / "a").mkdir()
    plan.notifier()._channels["file"](channels.Message(["x"], [{"message": "x"}]))
    assert json.loads((tmp_path / "a" / "alarms.jsonl").read_text()) == {"message": "x"}


def test_several_channels_and_a_webhook_are_a_configuration():
    config = AlarmConfig(notification_channel=("webhook", "email"))
    assert config.channels == ("webhook", "email")
    with pytest.raises(ConfigError, match="alarm_file"):
        AlarmConfig(notification_channel=("email", "file"))
    is_right, _ = ALARMS["notification_channel"]
    assert is_right("webhook") and is_right(["file", "slack"])
    assert not any(is_right(v) for v in ("pigeon", [], ["log", "pigeon"], 3, None))


def test_an_alarm_that_is_told_names_its_reactor():
    alarm = AlarmEvent(7, "Glc", 0.42, 1.0, "below", 2, probability=0.61, reactor_id="BR03")
    line = "BR03: warning: Glc is forecast to be 0.42 on day 9, limit 1 from below"
    assert alarm.message == f"{line} (probability 61%)"
    assert alarm.message in PAGE.read_text()


def test_the_page_names_every_key_variable_and_field():
    page = PAGE.read_text()
    told = set(re.findall(r"PERFUSIO_[A-Z_]+", page))
    read = Path(channels.__file__).read_text()
    assert told == set(re.findall(r"PERFUSIO_[A-Z_]*[A-Z]", read.split('"""')[1]))
    sent = {*asdict(AlarmEvent(0, "", 0, 0, "", 0)), "message"}
    rows = re.findall(r"^\| (`[^|]+) \|", page.split("## What is sent")[1], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == sent
    keys = set(re.findall(r"`(\w+)`", page.split("## Addresses")[0]))
    assert {*AlarmConfig.model_fields, *ALARMS} <= keys
    assert set(channels.CHANNELS) <= keys
