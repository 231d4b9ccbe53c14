"""Alarms: what raises one, and that each channel delivers, fails and hangs harmlessly."""

import asyncio
import contextlib
import email
import email.policy
import json
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import structlog

from perfusio_jax._core import ConfigError, DataError
from perfusio_jax.config import AlarmConfig
from perfusio_jax.twin.alarms.channels import CHANNELS, Picture, build_channel
from perfusio_jax.twin.alarms.events import AlarmEvent
from perfusio_jax.twin.alarms.notifications import AlarmNotifier

NAMES = ["VCD", "Glc", "Amm"]
LIMITS = {"Glc": (2.0, 8.0), "Amm": (0.0, 5.0)}
EVENT = AlarmEvent(7, "Glc", 1.5, 2.0, "below", 2)


def found(events):
    return [(e.species, e.direction, e.lead_days) for e in events]


def test_the_mean_beyond_a_limit_raises_on_each_day_of_the_window():
    mean = [[20, 3.0, 4.0], [21, 1.5, 5.5], [22, 1.0, 4.0], [23, 0.1, 9.0]]
    events = AlarmNotifier(LIMITS, lead_days=3).check_forecast({"mean": mean}, NAMES, 7)
    assert found(events) == [("Glc", "below", 2), ("Amm", "above", 2), ("Glc", "below", 3)]
    first = events[0]
    assert (first.day, first.violation_day, first.predicted_value, first.threshold) == (
        7,
        9,
        1.5,
        2.0,
    )
    assert first.probability is None
    assert "Glc is forecast to be 1.5 on day 9, limit 2 from below" in first.message


def test_a_forecast_exactly_at_its_limits_raises_nothing():
    mean = np.array([[20.0, 2.0, 5.0]] * 3)
    assert AlarmNotifier(LIMITS).check_forecast({"mean": mean}, NAMES, 1) == []


def test_samples_give_probabilities_by_day_and_for_the_window():
    samples = np.full((10, 3, 3), 4.0)
    samples[:2, 0, 1] = 1.0  # two paths low on day 1, two others on day 2
    samples[2:4, 1, 1] = 1.0
    samples[9] = np.nan  # a failed path is left out, not counted as fine
    mean = np.full((3, 3), 4.0)
    notifier = AlarmNotifier({"Glc": (2.0, None)}, min_probability=0.2)
    events = notifier.check_forecast({"mean": mean, "samples": samples}, NAMES, 0)
    assert found(events) == [("Glc", "below", 1), ("Glc", "below", 2)]
    assert events[0].probability == pytest.approx(2 / 9)
    assert events[0].probability_within_lead == pytest.approx(4 / 9)
    assert "probability 22%" in events[0].message
    quiet = AlarmNotifier({"Glc": (2.0, None)}, min_probability=0.3)
    assert quiet.check_forecast({"mean": mean, "samples": samples}, NAMES, 0) == []


def test_quantiles_give_the_probability_of_the_normal_they_belong_to():
    sd, mean = 0.5, np.full((1, 3), 3.0)
    q = {"q10": mean - 1.2815515655446004 * sd, "q90": mean + 1.2815515655446004 * sd, "q50": mean}
    for limits, side, z in (((2.75, None), "below", -0.5), ((None, 3.25), "above", -0.5)):
        (event,) = AlarmNotifier({"Glc": limits}).check_forecast({"mean": mean, **q}, NAMES, 0)
        assert event.direction == side
        assert event.probability == pytest.approx(0.5 * math.erfc(-z / math.sqrt(2)), abs=1e-9)
    skewed = {**q, "q90": mean + 10.0}  # a long upper tail must not count below
    (event,) = AlarmNotifier({"Glc": (2.75, None)}).check_forecast(
        {"mean": mean, **skewed}, NAMES, 0
    )
    assert event.probability == pytest.approx(0.3085375, abs=1e-6)


def test_a_forecast_without_width_is_certain():
    flat = {key: np.full((1, 3), 3.0) for key in ("mean", "q10", "q90")}
    assert AlarmNotifier({"Glc": (2.0, 4.0)}).check_forecast(flat, NAMES, 0) == []
    (event,) = AlarmNotifier({"Glc": (3.5, None)}).check_forecast(flat, NAMES, 0)
    assert event.probability == 1.0


def test_what_cannot_be_judged_is_an_alarm_not_silence():
    mean = [[20, np.nan, 4.0], [20, 4.0, 4.0]]
    events = AlarmNotifier({**LIMITS, "Lys": (None, 1.0)}).check_forecast({"mean": mean}, NAMES, 3)
    assert found(events) == [("Glc", "unknown", 1), ("Lys", "unknown", 1)]
    assert events[0].message == "Glc: no usable value for day 4"


@pytest.mark.parametrize(
    "forecast",
    [
        {"mean": [1.0, 2.0, 3.0]},
        {"mean": [[1.0, 2.0]]},
        {"mean": [[1.0, 2.0, 3.0]], "samples": np.zeros((5, 2, 3))},
        {"mean": [[1.0, 2.0, 3.0]], "q10": np.zeros((1, 2)), "q90": np.zeros((1, 2))},
    ],
)
def test_shapes_that_do_not_fit_are_refused(forecast):
    with pytest.raises(DataError, match="shape"):
        AlarmNotifier(LIMITS).check_forecast(forecast, NAMES, 0)


def test_a_measurement_is_judged_at_once_and_missing_is_not():
    notifier = AlarmNotifier(LIMITS, critical={"Amm": (None, 10.0)})
    events = notifier.check_sample({"Glc": 1.0, "Amm": 12.0, "VCD": math.nan}, 4)
    assert found(events) == [("Glc", "below", 0), ("Amm", "above", 0)]
    assert [event.severity for event in events] == ["warning", "critical"]
    assert "Amm is 12 on day 4" in events[1].message
    assert notifier.check_sample({"Glc": None, "Amm": math.nan}, 4) == []


def test_a_critical_alarm_tells_the_critical_limit_and_its_probability():
    notifier = AlarmNotifier({"Via": (97.0, None)}, critical={"Via": (95.0, None)})
    (event,) = notifier.check_sample({"Via": 92.1}, 6)
    assert event.severity == "critical" and event.threshold == 95.0
    assert "critical: Via is 92.1 on day 6, limit 95 from below" in event.message
    (event,) = notifier.check_sample({"Via": 96.0}, 6)
    assert event.severity == "warning" and event.threshold == 97.0
    mean = np.array([[94.0]])
    samples = np.array([94.0, 94.5, 96.0, 99.0]).reshape(4, 1, 1)
    (event,) = notifier.check_forecast({"mean": mean, "samples": samples}, ["Via"], 1)
    assert (event.severity, event.threshold, event.probability) == ("critical", 95.0, 0.5)
    (event,) = notifier.check_forecast({"mean": mean + 2.0, "samples": samples}, ["Via"], 1)
    assert (event.severity, event.threshold, event.probability) == ("warning", 97.0, 0.75)


def test_a_notifier_from_its_configuration_knows_warning_from_critical():
    notifier = AlarmNotifier.from_config(AlarmConfig())
    mean = [[96.0, 0.2, 9.0], [94.0, 2.0, 13.0]]
    events = notifier.check_forecast({"mean": mean}, ["Via", "Glc", "Amm"], 1)
    assert [(e.species, e.lead_days, e.severity) for e in events] == [
        ("Via", 1, "warning"),
        ("Amm", 1, "warning"),
        ("Glc", 1, "critical"),
        ("Via", 2, "critical"),
        ("Amm", 2, "critical"),
    ]
    assert notifier.channels == ("log",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"thresholds": {"Glc": (8.0, 2.0)}}, "the lower goes first"),
        ({"thresholds": {"Glc": (math.nan, 2.0)}}, "the lower goes first"),
        ({"thresholds": {"Glc": 2.0}}, "a lower and an upper one"),
        ({"lead_days": 0}, "lead_days"),
        ({"min_probability": 0.0}, "min_probability"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"channels": ["pigeon"]}, "Unknown alarm channel 'pigeon'; allowed are log, file"),
        ({"channels": ["file"]}, "alarm_file"),
        ({"channels": ["email"]}, "PERFUSIO_SMTP_HOST"),
        ({"channels": ["slack"]}, "PERFUSIO_SLACK_WEBHOOK_URL"),
        ({"channels": ["webhook"]}, "PERFUSIO_WEBHOOK_URL"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        AlarmNotifier(**({"thresholds": LIMITS} | settings))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PERFUSIO_SMTP_TO", "", "PERFUSIO_SMTP_TO"),
        ("PERFUSIO_SMTP_PORT", "many", "PORT must be a whole number"),
        ("PERFUSIO_SMTP_SECURITY", "rot13", "must be one of"),
        ("PERFUSIO_SMTP_PASSWORD", "hunter2", "unencrypted"),
    ],
)
def test_mail_settings_are_checked_and_never_shown(monkeypatch, name, value, words):
    for key, text in {"HOST": "mail", "TO": "a@b", "SECURITY": "none"}.items():
        monkeypatch.setenv(f"PERFUSIO_SMTP_{key}", text)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words) as caught:
        AlarmNotifier(LIMITS, channels=["email"])
    assert "hunter2" not in str(caught.value)


def test_a_webhook_address_must_be_of_the_web(monkeypatch):
    monkeypatch.setenv("PERFUSIO_WEBHOOK_URL", "file:///etc/passwd")
    with pytest.raises(ConfigError, match="http or https"):
        AlarmNotifier(LIMITS, channels=["webhook"])


def test_the_log_gets_one_entry_per_alarm():
    with structlog.testing.capture_logs() as logs:
        report = asyncio.run(AlarmNotifier(LIMITS).dispatch([EVENT]))
    assert report.ok and report.sent == ("log",)
    assert [(e["event"], e["species"], e["log_level"]) for e in logs] == [
        ("alarm", "Glc", "warning")
    ]


def test_the_file_gets_one_line_per_alarm_and_no_nan(tmp_path):
    path = tmp_path / "alarms.jsonl"
    notifier = AlarmNotifier(LIMITS, channels=["file"], alarm_file=path, repeat_after_s=0.0)
    unknown = AlarmEvent(7, "Amm", math.nan, math.nan, "unknown", 1)
    asyncio.run(notifier.dispatch([EVENT, unknown]))
    asyncio.run(notifier.dispatch([EVENT]))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["species"] for line in lines] == ["Glc", "Amm", "Glc"]
    assert lines[1]["predicted_value"] is None


def test_the_same_alarm_is_quiet_for_a_while_and_a_worse_one_is_not(tmp_path):
    now = [0.0]
    notifier = AlarmNotifier(LIMITS, repeat_after_s=100.0, clock=lambda: now[0])
    worse = AlarmEvent(7, "Glc", 0.1, 2.0, "below", 2, severity="critical")

    def send(event):
        return asyncio.run(notifier.dispatch([event]))

    assert send(EVENT).sent == ("log",)
    again = send(EVENT)
    assert (again.sent, again.n_suppressed) == ((), 1)
    assert send(worse).sent == ("log",)
    now[0] = 101.0
    assert send(EVENT).sent == ("log",)
    assert asyncio.run(notifier.dispatch([])).sent == ()


class MailServer:
    """A small SMTP server that keeps what it is sent, or misbehaves."""

    def __init__(self, mode: str = "accept") -> None:
        self.mode = mode
        self.messages: list[bytes] = []
        self.recipients: list[str] = []
        self.tasks: list[asyncio.Task] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        with contextlib.closing(writer):
            await self.talk(reader, writer)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self.mode == "hang":
                await reader.read()
                return
            say("220 test")
            while line := (await reader.readline()).decode().strip():
                command = line.split()[0].upper()
                if command == "EHLO":
                    say("250 test")
                elif command == "RCPT":
                    self.recipients.append(line.split(":", 1)[1])
                    say("550 hunter2 is no password" if self.mode == "refuse" else "250 ok")
                elif command == "DATA":
                    say("354 go on")
                    self.messages.append(await reader.readuntil(b"\r\n.\r\n"))
                    say("250 kept")
                elif command == "QUIT":
                    say("221 bye")
                    break
                else:
                    say("250 ok")


def with_mail(monkeypatch, mode, use, **more):
    """Run `use(notifier, server)` against a live mail server on loopback."""

    async def main():
        mail = MailServer(mode)
        server = await asyncio.start_server(mail.serve, "127.0.0.1", 0)
        settings = {
            "HOST": "127.0.0.1",
            "PORT": str(server.sockets[0].getsockname()[1]),
            "TO": "ada@lab, bob@lab",
            "FROM": "twin@lab",
            "SECURITY": "none",
        }
        for key, text in settings.items():
            monkeypatch.setenv(f"PERFUSIO_SMTP_{key}", text)
        notifier = AlarmNotifier(
            LIMITS, channels=["email"], timeout_s=0.5, repeat_after_s=1e9, **more
        )
        async with server:
            result = await use(notifier, mail)
        await asyncio.gather(*mail.tasks)
        return result

    return asyncio.run(main())


def test_mail_is_delivered_to_everyone(monkeypatch):
    async def use(notifier, mail):
        other = AlarmEvent(7, "Am\r\nBcc: eve@evil", 6.0, 5.0, "above", 1)
        report = await notifier.dispatch([other, EVENT])
        assert report.ok and set(report.sent) == {"log", "email"}
        return mail

    mail = with_mail(monkeypatch, "accept", use)
    assert mail.recipients == ["<ada@lab>", "<bob@lab>"]
    message = email.message_from_bytes(mail.messages[0])
    assert message["From"] == "twin@lab" and message["Bcc"] is None
    assert "(and 1 more)" in " ".join(message["Subject"].split())
    assert "Glc is forecast to be 1.5 on day 9" in message.get_payload()


PNG = Picture(b"\x89PNG\r\n\x1a\nnot much of one", 'Glc "5" <b>low</b>', "alarm_R01.png")


def test_a_mail_brings_its_picture_shown_and_attached(monkeypatch):
    async def use(notifier, mail):
        assert (await notifier.dispatch([EVENT])).no_picture == ""
        return mail

    asked = []
    mail = with_mail(
        monkeypatch, "accept", use, draws=lambda events, foreseen: asked.append(events) or PNG
    )
    assert asked == [[EVENT]]
    message = email.message_from_bytes(mail.messages[0], policy=email.policy.default)
    text, page = message.get_body(("plain",)), message.get_body(("html",))
    assert "Glc is forecast to be 1.5 on day 9" in text.get_content()
    assert f"alarm_R01.png): {PNG.text}" in text.get_content()
    content = page.get_content()
    assert 'alt="Glc &quot;5&quot; &lt;b&gt;low&lt;/b&gt;"' in content and "<b>" not in content
    pictures = [p for p in message.walk() if p.get_content_type() == "image/png"]
    assert [p.get_content_disposition() for p in pictures] == ["inline", "attachment"]
    assert all(p.get_content() == PNG.png for p in pictures)
    assert f"cid:{pictures[0]['Content-ID'][1:-1]}" in content
    assert pictures[1].get_filename() == "alarm_R01.png"


def fails(events, foreseen):
    raise DataError("the run has no sample yet; password=hunter2")


@pytest.mark.parametrize(
    ("draws", "reason"),
    [
        (fails, "the run has no sample yet"),
        (lambda events, foreseen: 1 / 0, "ZeroDivisionError"),
        (lambda events, foreseen: time.sleep(1.0), "no answer within 0.1 s"),
    ],
)
def test_a_mail_goes_without_a_picture_that_fails_and_says_why(monkeypatch, draws, reason):
    async def use(notifier, mail):
        return await notifier.dispatch([EVENT]), mail

    report, mail = with_mail(monkeypatch, "accept", use, draws=draws, draw_timeout_s=0.1)
    assert report.ok and reason in report.no_picture
    message = email.message_from_bytes(mail.messages[0], policy=email.policy.default)
    said = message.get_content()
    assert message.get_content_type() == "text/plain" and "hunter2" not in said
    assert f"There is no figure with this: {reason}" in said


def test_pictures_that_hang_do_not_pile_up_and_nothing_waits_for_them(monkeypatch):
    done, n_begun = threading.Event(), []

    def draws(events, foreseen):
        n_begun.append(1)
        done.wait(10.0)
        return PNG

    async def use(notifier, mail):
        notifier.repeat_after_s = 0.0
        first = asyncio.create_task(notifier.dispatch([EVENT]))
        ticks = 0
        while not first.done():
            ticks += 1
            await asyncio.sleep(0)
        again = await notifier.dispatch([EVENT])
        assert ticks > 10 and first.result().ok
        assert "still being drawn" in again.no_picture and again.ok
        done.set()

    with_mail(monkeypatch, "accept", use, draws=draws, draw_timeout_s=0.1)
    assert n_begun == [1]


def test_nobody_draws_for_channels_that_take_no_picture(tmp_path):
    notifier = AlarmNotifier(
        LIMITS, channels=["file"], alarm_file=tmp_path / "a.jsonl", draws=lambda *_: 1 / 0
    )
    report = asyncio.run(notifier.dispatch([EVENT]))
    assert report.ok and report.no_picture == ""


def test_channels_are_those_a_configuration_may_name(tmp_path, monkeypatch):
    for name in ("SMTP_HOST", "SMTP_TO", "SLACK_WEBHOOK_URL", "WEBHOOK_URL"):
        monkeypatch.setenv(f"PERFUSIO_{name}", "http://127.0.0.1:1")
    for name in CHANNELS:
        AlarmConfig(notification_channel=name, alarm_file="a.jsonl")
        assert callable(build_channel(name, timeout_s=1.0, alarm_file=tmp_path / "a.jsonl"))


def test_a_refused_mail_is_reported_without_the_servers_words_and_tried_again(monkeypatch):
    async def use(notifier, mail):
        first = await notifier.dispatch([EVENT])
        second = await notifier.dispatch([EVENT])
        for report in (first, second):
            ((channel, reason),) = report.failed
            assert channel == "email" and "SMTPRecipientsRefused" in reason
            assert "hunter2" not in reason
        assert first.sent == ("log",) and second.sent == ()

    with_mail(monkeypatch, "refuse", use)


def test_a_mail_server_that_hangs_does_not_block_the_loop(monkeypatch):
    async def use(notifier, mail):
        task = asyncio.create_task(notifier.dispatch([EVENT]))
        ticks = 0
        while not task.done():
            ticks += 1
            await asyncio.sleep(0)
        report = task.result()
        assert ticks > 10
        assert report.failed[0][0] == "email" and report.sent == ("log",)

    started = time.monotonic()
    with_mail(monkeypatch, "hang", use)
    assert time.monotonic() - started < 5.0


async def web_server(answer: str):
    """A web server that gives one answer and keeps the bodies it was sent."""
    bodies: list[bytes] = []
    tasks: list[asyncio.Task] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        bodies.append(await reader.readexactly(length))
        writer.write(
            f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/s3cret"
    return SimpleNamespace(server=server, bodies=bodies, tasks=tasks, url=url)


@pytest.mark.parametrize("answer", ["200 OK", "500 Oops"])
def test_slack_and_webhook_are_posted_to_and_failures_hide_the_address(monkeypatch, answer):
    monkeypatch.setenv("no_proxy", "*")

    async def main():
        web = await web_server(answer)
        monkeypatch.setenv("PERFUSIO_SLACK_WEBHOOK_URL", web.url)
        monkeypatch.setenv("PERFUSIO_WEBHOOK_URL", web.url)
        notifier = AlarmNotifier(LIMITS, channels=["slack", "webhook"])
        async with web.server:
            report = await notifier.dispatch([EVENT])
        await asyncio.gather(*web.tasks)
        return web, report

    web, report = asyncio.run(main())
    contents = [json.loads(body) for body in web.bodies]
    slack = next(c for c in contents if "text" in c)
    hook = next(c for c in contents if "alarms" in c)
    assert slack["text"] == EVENT.message
    assert hook["alarms"][0]["species"] == "Glc" and hook["alarms"][0]["threshold"] == 2.0
    if answer == "200 OK":
        assert report.ok and set(report.sent) == {"log", "slack", "webhook"}
    else:
        assert {name for name, _ in report.failed} == {"slack", "webhook"}
        assert all(reason == "the web server answered 500" for _, reason in report.failed)


def test_a_dead_address_is_a_failure_in_words(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PERFUSIO_WEBHOOK_URL", "http://127.0.0.1:1/s3cret")
    report = asyncio.run(AlarmNotifier(LIMITS, channels=["webhook"]).dispatch([EVENT]))
    ((_, reason),) = report.failed
    assert "refused" in reason.lower() and "s3cret" not in reason
