"""The store's revisions against a few lines of Python: whatever comes, in whatever order."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from perfusio_jax._core import DataError, SampleNotReady
from perfusio_jax.connectors.base import SampleRecord
from perfusio_jax.connectors.sql.records import record_of
from perfusio_jax.connectors.sql.store import SQLStore
from perfusio_jax.twin.records.entries import Stored

PHASES = (Phase.explicit, Phase.generate)  # an example of six steps needs no shrinking
NAMES = ("VCD", "Glc", "V_bleed_L", "pH")
VALUE = st.sampled_from([None, 0.0, 1.0, 2.5, float("nan")])
QUALITY = st.sampled_from(["good", "good", "uncertain", "bad", "missing"])


class Sample(NamedTuple):
    """What a person would write down of one sample."""

    day: int
    cells: dict[str, tuple[float | None, str]]
    """Value and quality of each name that has any."""
    volume_L: float | None


class Arrival(NamedTuple):
    day: int
    time_h: float
    values: dict[str, float | None]
    quality: dict[str, str]
    volume_L: float | None

    def record(self) -> SampleRecord:
        return record_of(
            self.day, self.values, time_h=self.time_h, quality=self.quality, volume_L=self.volume_L
        )

    def noted(self) -> Sample:
        cells = {}
        for name, value in self.values.items():
            says = self.quality.get(name, "good")
            is_there = value is not None and value == value and says in ("good", "uncertain")
            if is_there:
                cells[name] = (value, says)
            else:
                cells[name] = (None, "bad" if says == "bad" else "missing")
        return Sample(self.day, cells, self.volume_L)


ARRIVALS = st.builds(
    lambda day, shift, values, quality, volume: Arrival(
        day, 24.0 * day + shift, values, {n: q for n, q in quality.items() if n in values}, volume
    ),
    st.integers(0, 2),
    st.sampled_from([0.0, 6.0, -6.0]),
    st.dictionaries(st.sampled_from(NAMES), VALUE, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(NAMES), QUALITY, max_size=3),
    st.sampled_from([None, 0.25, 0.2]),
)


def joined(old: Sample, new: Sample) -> tuple[Sample, bool, bool]:
    """A second sample of one time beside the first; whether it fills gaps, whether it differs."""
    cells, fills, differs = dict(old.cells), False, False
    for name, cell in new.cells.items():
        was = cells.get(name, (None, "missing"))
        if cell[1] == "missing" or cell == was:  # late news of nothing changes nothing
            continue
        fills |= was[1] == "missing"
        differs |= was[1] != "missing"
        cells[name] = cell
    volume = old.volume_L
    if new.volume_L is not None and new.volume_L != old.volume_L:
        fills |= old.volume_L is None
        differs |= old.volume_L is not None
        volume = new.volume_L
    differs |= new.day != old.day
    return Sample(new.day, cells, volume), fills, differs


class Revisions(RuleBasedStateMachine):
    """Two programs on one file, and what should stand in it."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "s.db"
        self.model: dict[float, list[Sample]] = {}
        self.others = 0

    @initialize()
    def begin(self) -> None:
        shutil.copy(self.template, self.file)
        self.stores = [self.opened(), self.opened()]

    def opened(self, reactor: str = "R1") -> SQLStore:
        return SQLStore(f"sqlite:///{self.file}", "E", reactor)

    # ------------------------------------------------------------------ what may happen

    @rule(
        which=st.integers(0, 1),
        arrivals=st.lists(ARRIVALS, min_size=1, max_size=3),
        is_correction=st.booleans(),
    )
    def arrive(self, which: int, arrivals: list[Arrival], is_correction: bool) -> None:
        expected, fates = {t: list(r) for t, r in self.model.items()}, []
        refused = False
        for arrival in arrivals:
            new, known = arrival.noted(), expected.get(arrival.time_h)
            if known is None:
                expected[arrival.time_h] = [new]
                fates.append(Stored.NEW)
                continue
            after, fills, differs = joined(known[-1], new)
            refused |= differs and not is_correction
            if fills or differs:
                known.append(after)
            fates.append(Stored.CORRECTED if fills or differs else Stored.DUPLICATE)
        records = [arrival.record() for arrival in arrivals]
        try:
            found = self.stores[which].write_records(
                records, is_correction=is_correction, user="ada", reason="because"
            )
        except DataError as error:
            assert refused, error
            assert "store it as a correction" in str(error)
        else:
            assert not refused and found == fates
            self.model = expected

    @rule(which=st.integers(0, 1))
    def begin_again(self, which: int) -> None:
        asyncio.run(self.stores[which].close())
        self.stores[which] = self.opened()

    @rule()
    def another_reactor(self) -> None:
        store = self.opened("R2")
        self.others += 1
        store.write_sample(self.others, {"VCD": 99.0})
        asyncio.run(store.close())

    @precondition(lambda self: self.model)
    @rule(data=st.data(), which=st.integers(0, 1))
    def the_same_again(self, data: Any, which: int) -> None:
        time_h = data.draw(st.sampled_from(sorted(self.model)))
        last = self.model[time_h][-1]
        values = {n: v for n, (v, _) in last.cells.items()}
        quality = {n: q for n, (_, q) in last.cells.items()}
        fate = self.stores[which].write_sample(
            last.day, values, time_h=time_h, quality=quality, volume_L=last.volume_L
        )
        assert fate is Stored.DUPLICATE

    # ------------------------------------------------------------------ what must hold

    @invariant()
    def everything_ever_stored_is_there_and_the_newest_counts(self) -> None:
        if not hasattr(self, "stores"):
            return
        for store in self.stores[len(self.model) % 2 :][:1]:  # the one or the other
            history = asyncio.run(store.read_history())
            assert [r.time_h for r in history] == sorted(self.model)
            for record in history:
                assert seen(record) == told(self.model[record.time_h][-1])
        store = self.stores[0]
        days = sorted({s.day for revisions in self.model.values() for s in revisions})
        # a day is listed as long as any revision was of it
        assert asyncio.run(store.days_available()) == days
        for day in range(3):
            kept = store.read_revisions(day)
            wanted = [
                (n, told(sample))
                for _, revisions in sorted(self.model.items())
                for n, sample in enumerate(revisions, start=1)
                if sample.day == day
            ]
            assert [(k["revision"], seen(k["record"])) for k in kept] == wanted

    def teardown(self) -> None:
        for store in getattr(self, "stores", ()):
            asyncio.run(store.close())
        self.folder.cleanup()


def seen(record: SampleRecord) -> tuple[Any, ...]:
    cells = {}
    for group in (record.values, record.stream_totals, record.tags):
        cells |= {n: (v, record.quality[n]) for n, v in group.items()}
    return record.day, cells, record.volume_L


def told(sample: Sample) -> tuple[Any, ...]:
    return sample.day, sample.cells, sample.volume_L


def test_the_store_keeps_every_revision_as_a_person_would(tmp_path):
    Revisions.template = tmp_path / "empty.db"
    store = SQLStore(f"sqlite:///{Revisions.template}", "E", "R1")
    store.create_tables()
    asyncio.run(store.close())
    case = Revisions.TestCase()
    case.settings = settings(
        max_examples=10, stateful_step_count=6, derandomize=True, deadline=None, phases=PHASES
    )
    case.runTest()


def test_a_day_without_a_sample_is_not_ready_and_the_nearest_counts(tmp_path):
    store = SQLStore(f"sqlite:///{tmp_path / 'a.db'}", "E", "R1")
    store.create_tables()
    for shift, value in ((6.0, 3.0), (-5.0, 2.0)):
        store.write_sample(1, {"VCD": value}, time_h=24.0 + shift)
    record = asyncio.run(store.read_record(1))
    assert record.values["VCD"] == 2.0 and "30" in record.notes[-1]
    try:
        asyncio.run(store.read_record(2))
    except SampleNotReady as error:
        assert "day 2" in str(error)
    else:
        raise AssertionError("there is no sample of day 2")
    asyncio.run(store.close())
