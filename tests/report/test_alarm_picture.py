"""The picture that an alarm brings along, from a run folder to the mail."""

import asyncio
import datetime as dt
import email
import email.policy
import io
import socketserver
import threading
import time

import matplotlib.image
import numpy as np
import pytest
from typer.testing import CliRunner

from perfusio_jax._core import DataError, PerfusioError
from perfusio_jax.cli import app
from perfusio_jax.report.alarm_picture import _bands, alarm_pictures
from perfusio_jax.twin import AuditLogger, Runtime
from perfusio_jax.twin.alarms.daily_alarms import raise_alarms
from perfusio_jax.twin.alarms.desk import AlarmDesk, event
from perfusio_jax.twin.alarms.events import AlarmEvent, Foreseen
from perfusio_jax.twin.alarms.notifications import AlarmNotifier
from perfusio_jax.twin.decision.brain import Proposal
from perfusio_jax.twin.records.records_file import RunRecords
from perfusio_jax.twin.records.runtime import in_thread
from perfusio_jax.viz import Crossing, RunView, alarm_figure
from tests.faults.world import read_log

from .run_folders import SPECIES, make_run

GLUCOSE = AlarmEvent(4, "Glc", 0.7, 1.0, "below", 2, probability=0.6, reactor_id="R01")


def foreseen(names=SPECIES):
    steps = np.arange(1, 4)
    mean = np.stack([np.full(3, 5.0) if n != "Glc" else 2.0 - 0.65 * steps for n in names], 1)
    samples = mean + np.random.default_rng(0).normal(0.0, 0.1, (40, *mean.shape))
    return Foreseen(4, names, {"mean": mean, "samples": samples, "lead_days": steps})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("alarm") / "E1")


def test_the_picture_shows_the_forecast_that_raised_the_alarm(run):
    found = alarm_pictures(run, "R01")([GLUCOSE], foreseen())
    pixels = matplotlib.image.imread(io.BytesIO(found.png))
    assert 600 < pixels.shape[1] < 1200 and len(found.png) < 200_000
    assert found.name == "alarm_R01_day4.png"
    assert "Alarm of reactor R01, run E1, day 4" in found.text
    assert "Glc: 5 readings, the last 4.2 g/L" in found.text
    assert "forecast to be 0.7 g/L on day 6, below the limit of 1 g/L" in found.text
    assert "VCD" not in found.text


def test_forecasts_lie_at_their_true_times():
    steps = {"mean": np.ones((2, 1)), "q10": np.ones((2, 1)), "q90": np.ones((2, 1))}
    for told, hours in (
        ({}, [120.0, 144.0]),
        ({"lead_days": [0.5, 1.0]}, [108.0, 120.0]),
        ({"days": [5.1, 6.1], "lead_days": [1, 2]}, [122.4, 146.4]),
    ):
        bands = _bands(Foreseen(4, ("X",), steps | told))
        np.testing.assert_allclose(bands["X"].hours, hours)


def test_an_alarm_of_no_quantity_shows_the_run(run):
    found = alarm_pictures(run, "R01")([event("drift", "model", "it drifts", 4.0)], None)
    assert all(name in found.text for name in ("VCD", "Via", "Glc", "Lac"))


def test_limits_and_crossings_are_drawn_and_panels_are_few():
    hours = 24.0 * np.arange(6)
    readings = {f"Q{k}": np.linspace(1, 2, 6) for k in range(7)}
    crossings = [Crossing(f"Q{k}", 7.0, 3.0, 2.5, "above") for k in range(6)]
    view = RunView("E", hours, readings, {"F": np.ones(6)})
    figure = alarm_figure(view, {"Q0": "g/L"}, crossings, title="Six at once")
    panels = [axes for axes in figure.axes if len(axes.lines) > 2]
    assert len(panels) == 4
    for axes in panels:
        drawn = [np.asarray(line.get_ydata(), float).tolist() for line in axes.lines]
        assert [2.5, 2.5] in drawn and [3.0] in drawn


def test_a_run_without_a_sample_has_no_picture(tmp_path):
    make_run(tmp_path / "E1", n_days=0)
    with pytest.raises(DataError, match="no sample yet"):
        alarm_pictures(tmp_path / "E1", "R01")([GLUCOSE], None)
    with pytest.raises((PerfusioError, OSError)):
        alarm_pictures(tmp_path / "none", "R01")([GLUCOSE], None)


class _Mail(socketserver.StreamRequestHandler):
    """A mail server of a few words; it keeps what it is sent."""

    def handle(self) -> None:
        def say(text: str) -> None:
            self.wfile.write(text.encode() + b"\r\n")

        say("220 test")
        while command := self.rfile.readline().decode().strip().upper():
            if command == "DATA":
                say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.kept.append(b"".join(lines))
                say("250 kept")
            elif command == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


def test_alarm_test_mails_the_figure_of_a_run(tmp_path, monkeypatch):
    make_run(tmp_path / "R01")
    (tmp_path / "samples.csv").write_text("day,reactor_id,VCD\n0,R01,1\n")
    (tmp_path / "twin.toml").write_text(
        '[twin]\nsource = "samples.csv"\nreactors = ["R01", "R02"]\n'
        '[alarms]\nnotification_channel = "email"\n'
    )
    with socketserver.TCPServer(("127.0.0.1", 0), _Mail) as server:
        server.kept = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = str(server.server_address[1])
        for key, text in {"HOST": "127.0.0.1", "PORT": port, "TO": "a@lab"}.items():
            monkeypatch.setenv(f"PERFUSIO_SMTP_{key}", text)
        monkeypatch.setenv("PERFUSIO_SMTP_SECURITY", "none")
        first = CliRunner().invoke(app, ["alarm-test", str(tmp_path)])
        (tmp_path / "R01" / "journal.sqlite").write_bytes(b"no journal")
        second = CliRunner().invoke(app, ["alarm-test", str(tmp_path)])
        server.shutdown()
    assert first.exit_code == 0 and first.output.endswith("email: delivered\n")
    assert second.exit_code == 0
    assert "email: delivered without a figure:" in second.output.replace("\n", " ")
    with_figure, without = [
        email.message_from_bytes(text, policy=email.policy.default) for text in server.kept
    ]
    kinds = [part.get_content_type() for part in with_figure.walk()]
    assert kinds.count("image/png") == 2
    assert "There is no figure with this:" in without.get_body(("plain",)).get_content()


@pytest.mark.parametrize("is_drawn", [True, False])
def test_a_desk_hands_the_forecast_over_and_a_missing_figure_is_on_record(
    tmp_path, monkeypatch, is_drawn
):
    """From a sample's forecast to the mail, through the loop's own desk."""
    asked, sent = [], []

    def draws(events, foreseen):
        asked.append((events, foreseen))
        return alarm_pictures(run, "R01")(events, foreseen)

    run = make_run(tmp_path / "R01", n_days=5 if is_drawn else 0)
    monkeypatch.setenv("PERFUSIO_SMTP_HOST", "mail")
    monkeypatch.setenv("PERFUSIO_SMTP_TO", "a@lab")
    notifier = AlarmNotifier({"Glc": (1.0, None)}, channels=["email"], draws=draws)
    notifier._channels["email"] = sent.append

    async def live() -> None:
        runtime = Runtime(lambda: dt.datetime.now(dt.UTC), time.monotonic, asyncio.sleep, in_thread)
        with RunRecords(run / "journal.sqlite") as book:
            with AuditLogger(run, "E1", memory=book) as audit:
                desk = AlarmDesk(book, audit, notifier, runtime=runtime, reactor_id="R01")
                ahead = foreseen()
                await raise_alarms(
                    desk,
                    notifier,
                    4.0,
                    record={"values": {}, "implausible": [], "quality": "good"},
                    proposal=Proposal({}, forecast=dict(ahead.forecast), species=SPECIES),
                    trouble="",
                )
                await desk.drain(60.0)

    asyncio.run(live())
    ((events, known),) = asked
    assert {e.species for e in events} == {"Glc"} and known.day == 4.0
    assert known.species == SPECIES and known.forecast["mean"].shape == (3, 5)
    (told,) = sent
    log = [r for r in read_log(run) if r["event_type"] == "ALARM_WITHOUT_FIGURE"]
    if is_drawn:
        assert told.picture.png.startswith(b"\x89PNG") and told.no_picture == "" and log == []
    else:
        assert told.picture is None and "no sample yet" in told.no_picture
        assert [r["reason"] for r in log] == [told.no_picture]
