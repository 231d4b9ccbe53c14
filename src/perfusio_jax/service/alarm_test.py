"""`perfusio-jax alarm-test`: whether alarms arrive, before one has to."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perfusio_jax._core import ConfigError
from perfusio_jax.twin.alarms.channels import PICTURED
from perfusio_jax.twin.alarms.desk import event
from perfusio_jax.twin.alarms.notifications import AlarmNotifier
from perfusio_jax.twin.records.run_files import JOURNAL_NAME

from .described_settings import channels_of
from .fleet_file import fleet_of
from .settings import folders_of, read_settings

if TYPE_CHECKING:
    from .plan import Pictures


def send_test_alarm(
    what: Path,
    channels: Sequence[str] = (),
    *,
    say: Callable[[str], None],
    pictures: "Pictures | None" = None,
) -> bool:
    """Send one alarm that means nothing through every channel of a configuration.

    Nothing is put on record and no model is read, so it works before there is one.

    Args:
        what: `twin.toml`, its folder, or a fleet.
        channels: Channels to try in place of those of `[alarms]`.
        say: Takes a line for each channel.
        pictures: Makes what draws the alarms of a vessel; of several, the first with a run.

    Returns:
        Whether every channel took it.

    Raises:
        ConfigError: If the configuration cannot be used, or a channel lacks its settings.
    """
    return all([_send(config, channels, say, pictures) for config in fleet_of(what) or [what]])


def _send(
    what: Path, channels: Sequence[str], say: Callable[[str], None], pictures: "Pictures | None"
) -> bool:
    """The same of one run."""
    settings, base = read_settings(what)
    alarms = settings.get("alarms", {})
    told = tuple(channels) or channels_of(alarms.get("notification_channel", "log"))
    file = alarms.get("alarm_file")
    if "file" in told and file is None:
        raise ConfigError("The channel 'file' needs alarm_file in [alarms], the file to append to.")
    folders = folders_of(settings.get("twin", {}), base)
    begun = [(f, name) for name, f in folders.items() if (f / JOURNAL_NAME).is_file()]
    is_pictured = begun and not set(PICTURED).isdisjoint(told)
    notifier = AlarmNotifier(
        {},
        channels=told,
        alarm_file=None if file is None else base / str(file),
        draws=pictures(*begun[0]) if pictures is not None and is_pictured else None,
    )
    vessels = ", ".join(folders)
    note = f"test of the alarm channels of {vessels}; nothing has happened, nothing is to be done"
    report = asyncio.run(notifier.dispatch([event("session", "alarm-test", note, 0.0)]))
    failed = dict(report.failed)
    for name in notifier.channels:
        bare = f" without a figure: {report.no_picture}" if report.no_picture else ""
        bare = bare if name in PICTURED else ""
        said = f"not delivered, {failed[name]}" if name in failed else f"delivered{bare}"
        say(f"{name}: {said}")
    return report.ok
