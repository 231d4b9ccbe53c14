"""A million samples in SQLite and in PostgreSQL: `python -m benchmarks.stores`.

Fifty experiments of 24 reactors with 42 daily samples each, and online tags of the last
experiment, together a million rows, written through the store as any program would. Then what
the twin asks for once a day and reactor: the sample of a day, the online tags, the set-points in
force; and what it asks for on start: the history of a run. Times are of one call from a
coroutine, on random reactors and days; the database lies in a temporary folder and commits reach
the disk. PostgreSQL is a server of its own, started here; without its programs it is left out.
"""

import argparse
import asyncio
import contextlib
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from perfusio_jax.connectors import SQLStore
from perfusio_jax.connectors.base import SampleRecord
from perfusio_jax.connectors.sql.records import record_of
from tests.connectors.postgres import find_binaries, running_server

Call = Callable[[SQLStore], Awaitable[object]]

N_EXPERIMENTS, N_REACTORS, N_DAYS = 50, 24, 42
DAILY_MS = 20.0


def daily(day: int) -> SampleRecord:
    """A full daily sample."""
    names = ("VCD", "Via", "Diam", "Glc", "Gln", "Glu", "Lac", "Amm", "Pyr", "Titer")
    return record_of(day, {name: 1.0 + 0.1 * day for name in names} | {"pH": 7.0, "DO": 40.0})


def online(k: int) -> SampleRecord:
    """Online tags of one minute."""
    tags = {"pH": 7.0, "DO": 40.0, "capacitance": 0.1 * k}
    return record_of(k // 1440, tags, time_h=k / 60.0)


def fill(store: SQLStore, n_samples: int) -> None:
    """Write the samples, reactor by reactor."""
    n_daily = N_EXPERIMENTS * N_REACTORS * N_DAYS
    if n_samples <= n_daily:
        raise SystemExit(f"--samples must be above {n_daily}.")
    days = [daily(day) for day in range(N_DAYS)]
    for e in range(N_EXPERIMENTS):
        for r in range(N_REACTORS):
            reactor = store.for_reactor(f"R{r:02d}")
            reactor.experiment_name = f"E{e:02d}"
            reactor.write_records(days)
    rest = n_samples - n_daily
    for r in range(N_REACTORS):
        reactor = store.for_reactor(f"R{r:02d}")
        reactor.experiment_name = f"E{N_EXPERIMENTS - 1:02d}"
        share = rest // N_REACTORS + (r < rest % N_REACTORS)
        for start in range(0, share, 5000):
            part = [online(k) for k in range(start, min(start + 5000, share))]
            reactor.write_records(part, kind="online")
        asyncio.run(reactor.write_setpoints({"temperature": 36.5, "perfusion_rate": 1.2}))


async def timed(call: Call, store: SQLStore, n: int) -> list[float]:
    """Milliseconds of each of n calls on random reactors."""
    taken = []
    for _ in range(n):
        reactor = store.for_reactor(f"R{random.randrange(N_REACTORS):02d}")
        started = time.perf_counter()
        await call(reactor)
        taken.append(1e3 * (time.perf_counter() - started))
    return taken


def measure(name: str, url: str, n_samples: int, n_calls: int) -> dict[str, float]:
    """Fill a database and time the twin's calls."""
    store = SQLStore(url, f"E{N_EXPERIMENTS - 1:02d}", "R00", timeout_s=60.0)
    store.create_tables()
    started = time.perf_counter()
    fill(store, n_samples)
    taken = time.perf_counter() - started
    store.database.close()
    cold = asyncio.run(timed(lambda s: s.read_record(20), store, 1))[0]
    calls: dict[str, Call] = {
        "daily read": lambda s: s.read_record(random.randrange(N_DAYS)),
        "online tags": lambda s: s.read_tags(),
        "read-back": lambda s: s.read_back(),
        "history": lambda s: s.read_history(),
        "set-points written": lambda s: s.write_setpoints({"temperature": 36.5}),
    }
    rate = n_samples / taken
    print(f"{name}: {n_samples} samples written at {rate:.0f}/s; first read {cold:.1f} ms")
    found = {"write_per_s": rate, "cold_ms": cold}
    for what, call in calls.items():
        times = asyncio.run(timed(call, store, n_calls))
        median, worst = statistics.median(times), statistics.quantiles(times, n=100)[98]
        print(f"  {what:20s} median {median:7.2f} ms   p99 {worst:7.2f} ms")
        if what == "daily read":
            found |= {"daily_ms": median, "daily_p99_ms": worst}
    store.database.close()
    return found


@contextlib.contextmanager
def postgres_url() -> Iterator[str]:
    """A fresh database on a server that keeps what it commits."""
    with running_server(is_durable=True) as server:
        os.environ["PGPASSWORD"] = server.password
        yield server.url(server.create_database())


def main() -> None:
    """Run and print; exit code 1 if a daily read takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000, help="rows in all")
    parser.add_argument("--calls", type=int, default=500, help="calls of each kind")
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="one of the two")
    options = parser.parse_args()
    random.seed(0)
    results: dict[str, dict[str, float]] = {}
    if options.only != "postgresql":
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "run.db"
            url = f"sqlite:///{file}"
            results["sqlite"] = measure("SQLite", url, options.samples, options.calls)
            print(f"  file {file.stat().st_size / 2**20:.0f} MiB")
    if options.only != "sqlite" and find_binaries() is not None:
        with postgres_url() as url:
            results["postgresql"] = measure("PostgreSQL", url, options.samples, options.calls)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    keys = " ".join(f"{kind}_{k}={v:.4g}" for kind, r in results.items() for k, v in r.items())
    print(f"stores: samples={options.samples} {keys} peak_MiB={memory:.0f}")
    if any(r["daily_ms"] > DAILY_MS for r in results.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
