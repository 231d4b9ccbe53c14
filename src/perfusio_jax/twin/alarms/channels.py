"""Ways to reach people: log, file, e-mail, Slack and any webhook.

Addresses and secrets come from the environment, are read when the channel is made, and
appear in no message, log or error:

- e-mail: `PERFUSIO_SMTP_HOST`, `PERFUSIO_SMTP_TO` (comma-separated), and optionally
  `PERFUSIO_SMTP_PORT` (587), `PERFUSIO_SMTP_FROM`, `PERFUSIO_SMTP_USER`,
  `PERFUSIO_SMTP_PASSWORD`, `PERFUSIO_SMTP_SECURITY` ("starttls", "ssl" or "none")
- Slack: `PERFUSIO_SLACK_WEBHOOK_URL`
- webhook: `PERFUSIO_WEBHOOK_URL` (receives JSON)
"""

import html
import json
import os
import smtplib
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from email.utils import make_msgid
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import structlog

from perfusio_jax._core import ConfigError, ConnectorError
from perfusio_jax._core.names import AlarmChannel

from ..records.chain import plain
from ..records.files import append_durably

CHANNELS: Final[tuple[str, ...]] = get_args(AlarmChannel)
"""Names of the channels, those a configuration may name."""

PICTURED: Final = ("email",)
"""Channels that take a picture."""


class Picture(NamedTuple):
    """What an alarm is about, to look at."""

    png: bytes
    """The picture, a PNG file."""
    text: str
    """What it shows, for people who do not see it."""
    name: str = "alarm.png"
    """Name of the file."""


class Message(NamedTuple):
    """A batch of alarms, told at once."""

    lines: Sequence[str]
    """One per alarm, for people."""
    records: Sequence[Mapping[str, Any]]
    """One per alarm, for machines."""
    picture: Picture | None = None
    """For the channels of `PICTURED`."""
    no_picture: str = ""
    """Why there is none, where there should be one."""


Channel = Callable[[Message], None]
"""Delivers a batch. Blocks; raises if it fails."""

_SECURITY: Final = ("starttls", "ssl", "none")


def build_channel(name: str, *, timeout_s: float, alarm_file: Path | str | None) -> Channel:
    """Make a channel, with its settings from the environment.

    Args:
        name: One of `CHANNELS`.
        timeout_s: How long [s] a connection may take.
        alarm_file: File of the "file" channel.

    Returns:
        The channel.

    Raises:
        ConfigError: If a setting it needs is missing or wrong; the variable is named, its
            value is not shown.
    """
    if name == "log":
        return _log
    if name == "file":
        if alarm_file is None:
            raise ConfigError("The alarm channel 'file' needs alarm_file, the file to append to.")
        return _file_channel(Path(alarm_file))
    if name == "email":
        return _email_channel(timeout_s)
    if name == "slack":
        address = _address("slack", "PERFUSIO_SLACK_WEBHOOK_URL")
        return lambda told: _post(address, {"text": "\n".join(told.lines)}, timeout_s)
    address = _address("webhook", "PERFUSIO_WEBHOOK_URL")
    return lambda told: _post(address, {"alarms": plain(told.records)[0]}, timeout_s)


def describe_failure(error: Exception) -> str:
    """What went wrong, without anything that may hold a secret.

    Args:
        error: What a channel raised.

    Returns:
        Kind of error with its code; texts of servers are left out, because some repeat what
        they were sent.
    """
    if isinstance(error, ConnectorError):
        return str(error)
    if isinstance(error, smtplib.SMTPResponseException):
        return f"the mail server answered {error.smtp_code} ({type(error).__name__})"
    if isinstance(error, urllib.error.HTTPError):
        return f"the web server answered {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return describe_failure(error.reason)
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}"
    return type(error).__name__


def _log(told: Message) -> None:
    log = structlog.get_logger("perfusio_jax.alarms")
    for record in told.records:
        level = log.critical if record["severity"] == "critical" else log.warning
        level("alarm", **record)


def _file_channel(path: Path) -> Channel:
    def deliver(told: Message) -> None:
        text = "".join(json.dumps(plain(record)[0]) + "\n" for record in told.records)
        append_durably(path, text.encode())

    return deliver


def _email_channel(timeout_s: float) -> Channel:
    settings = {
        name: os.environ.get(f"PERFUSIO_SMTP_{name.upper()}", "")
        for name in ("host", "port", "from", "to", "user", "password", "security")
    }
    for name in ("host", "to"):
        if not settings[name]:
            raise ConfigError(
                f"The alarm channel 'email' needs the environment variable "
                f"PERFUSIO_SMTP_{name.upper()}."
            )
    security = settings["security"] or "starttls"
    if security not in _SECURITY:
        raise ConfigError(f"PERFUSIO_SMTP_SECURITY must be one of {', '.join(_SECURITY)}.")
    if settings["password"] and security == "none":
        raise ConfigError(
            "PERFUSIO_SMTP_PASSWORD would travel unencrypted with PERFUSIO_SMTP_SECURITY=none; "
            "use starttls or ssl."
        )
    try:
        port = int(settings["port"] or {"starttls": 587, "ssl": 465, "none": 25}[security])
    except ValueError:
        raise ConfigError("PERFUSIO_SMTP_PORT must be a whole number.") from None
    sender = settings["from"] or settings["user"] or "perfusio-jax@localhost"
    recipients = [part.strip() for part in settings["to"].split(",") if part.strip()]

    def deliver(told: Message) -> None:
        message = mail_of(told)
        message["From"] = sender
        message["To"] = ", ".join(recipients)
        context = ssl.create_default_context() if security != "none" else None
        if security == "ssl":
            server = smtplib.SMTP_SSL(settings["host"], port, timeout=timeout_s, context=context)
        else:
            server = smtplib.SMTP(settings["host"], port, timeout=timeout_s)
        with server:
            if security == "starttls":
                server.starttls(context=context)
            if settings["user"] and settings["password"]:
                server.login(settings["user"], settings["password"])
            refused = server.send_message(message)
        if refused:
            raise ConnectorError(f"the mail server refused {len(refused)} of the recipients")

    return deliver


def mail_of(told: Message) -> EmailMessage:
    """The mail of a batch, without sender and recipients.

    Args:
        told: What it says. A picture is in it twice: in the text, with its words for programs that
            read aloud, and as a file to keep.

    Returns:
        The mail, its text plain and, with a picture, as a page too.
    """
    message = EmailMessage()
    first = " ".join(told.lines[0].split())
    more = f" (and {len(told.lines) - 1} more)" if len(told.lines) > 1 else ""
    message["Subject"] = f"[perfusio-jax] {first}{more}"
    text = "\n".join(told.lines) + "\n"
    if told.no_picture:
        text += f"\nThere is no figure with this: {told.no_picture}\n"
    if told.picture is None:
        message.set_content(text)
        return message
    png, words, name = told.picture
    message.set_content(f"{text}\nThe figure ({name}): {words}\n")
    mark = make_msgid(domain="perfusio-jax")
    page = "".join(f"<p>{html.escape(line)}</p>\n" for line in told.lines)
    shown = f'<img src="cid:{mark[1:-1]}" alt="{html.escape(words)}" style="max-width:100%">'
    message.add_alternative(f"<html><body>\n{page}{shown}\n</body></html>\n", subtype="html")
    body = message.get_body(("html",))
    if isinstance(body, EmailMessage):
        body.add_related(png, "image", "png", cid=mark, filename=name, disposition="inline")
    message.add_attachment(png, "image", "png", filename=name)
    return message


def _address(channel: str, variable: str) -> str:
    address = os.environ.get(variable, "")
    if not address:
        raise ConfigError(
            f"The alarm channel '{channel}' needs the environment variable {variable}."
        )
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise ConfigError(f"{variable} must be an http or https address.")
    return address


def _post(address: str, content: Mapping[str, Any], timeout_s: float) -> None:
    request = urllib.request.Request(
        address,
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as response:
        response.read(65536)
