"""Ways to reach people: log, file, e-mail, Slack and any webhook.

Addresses and secrets come from the environment, are read when the channel is made, and
appear in no message, log or error:

- e-mail: `PERFUSIO_SMTP_HOST`, `PERFUSIO_SMTP_TO` (comma-separated), and optionally
  `PERFUSIO_SMTP_PORT` (587), `PERFUSIO_SMTP_FROM`, `PERFUSIO_SMTP_USER`,
  `PERFUSIO_SMTP_PASSWORD`, `PERFUSIO_SMTP_SECURITY` ("starttls", "ssl" or "none")
- Slack: `PERFUSIO_SLACK_WEBHOOK_URL`
- webhook: `PERFUSIO_WEBHOOK_URL` (receives JSON)
"""

import json
import os
import smtplib
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

import structlog

from perfusio_jax._core import ConfigError, ConnectorError

from ..records.chain import plain
from ..records.files import append_durably

CHANNELS: Final = ("log", "file", "email", "slack", "webhook")
"""Names of the channels."""

Channel = Callable[[Sequence[str], Sequence[Mapping[str, Any]]], None]
"""Delivers a batch: one line per alarm for people, one record per alarm for machines. Blocks;
raises if it fails."""

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
        return lambda lines, records: _post(address, {"text": "\n".join(lines)}, timeout_s)
    address = _address("webhook", "PERFUSIO_WEBHOOK_URL")
    return lambda lines, records: _post(address, {"alarms": plain(records)[0]}, timeout_s)


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


def _log(lines: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
    log = structlog.get_logger("perfusio_jax.alarms")
    for record in records:
        level = log.critical if record["severity"] == "critical" else log.warning
        level("alarm", **record)


def _file_channel(path: Path) -> Channel:
    def deliver(lines: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(plain(record)[0]) + "\n" for record in records)
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

    def deliver(lines: Sequence[str], records: Sequence[Mapping[str, Any]]) -> None:
        message = EmailMessage()
        first = " ".join(lines[0].split())
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        message["Subject"] = f"[perfusio-jax] {first}{more}"
        message["From"] = sender
        message["To"] = ", ".join(recipients)
        message.set_content("\n".join(lines) + "\n")
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
