"""Thirty simulated days on 24 reactors: nothing grows that should not."""

import asyncio
import gc
import os

import numpy as np

from perfusio_jax.twin import verify_audit

from .plant import SAMPLE_FAULTS, WRITE_FAULTS
from .test_fleet import rack

DAYS, REACTORS = 30, 24


def test_a_month_on_a_rack_leaves_memory_descriptors_and_tasks_where_they_were():
    """Every reactor has a fault every third day; figures are taken once a day."""
    plans = {}
    for k in range(REACTORS):
        plan = {("x", 0): ""}
        for day in range(k % 3, DAYS, 3):
            kind, menu = (("sample", SAMPLE_FAULTS), ("write", WRITE_FAULTS))[(day // 3) % 2]
            plan[(kind, day)] = menu[(k + day) % len(menu)]
        plans[f"R{k:02d}"] = plan
    figures: list[tuple[int, int, int]] = []
    with rack(plans, n_days=DAYS) as made:

        async def watch() -> None:
            while True:
                await asyncio.sleep(86400.0)
                gc.collect()
                open_files = len(os.listdir("/proc/self/fd"))
                figures.append((len(gc.get_objects()), open_files, len(asyncio.all_tasks())))

        async def scenario():
            from perfusio_jax.twin import Fleet

            watcher = asyncio.create_task(watch())
            fates = await Fleet(made.loops, runtime=made.runtime).run(DAYS)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            return fates

        fates = made.loop.run_until_complete(scenario())
        assert {f.ending for f in fates.values()} == {"completed"}
        for name in made.plants:
            report = verify_audit(made.folder / name)
            assert report.ok, report
            cycles = made.files[name].records.cycles(name)
            assert list(cycles) == [float(d) for d in range(DAYS)]
    objects, files, tasks = np.array(figures[5:], float).T
    days = np.arange(objects.size)
    slope = np.polyfit(days, objects, 1)[0]
    print(
        f"objects {objects[0]:.0f} to {objects[-1]:.0f}, {slope:.1f} a day; files {files[-1]:.0f}"
    )
    # The stand-in plants remember what they served and took; the loops may add nothing to that.
    kept_by_plants = sum(len(v) for p in made.plants.values() for v in p.served.values()) / DAYS
    assert slope < 8.0 * kept_by_plants + 50.0
    assert files.max() == files.min() and tasks.max() - tasks.min() <= 2 * REACTORS
    assert np.polyfit(days, tasks, 1)[0] < 0.2
