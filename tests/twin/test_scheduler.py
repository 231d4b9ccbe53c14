"""The scheduler under simulated time: on time, stoppable, cancellable, restartable."""

import asyncio
import doctest
import json
import threading

import pytest

from perfusio_jax._core import ConfigError, StopRun
from perfusio_jax.twin.loop import scheduler as module
from perfusio_jax.twin.loop.scheduler import DailyScheduler


class Time:
    """A clock that only moves when somebody sleeps on it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)
        self.now += seconds


def build(step, time: Time | None = None, **settings) -> DailyScheduler:
    time = time or Time()
    settings = {"n_days": 5, "interval_seconds": 0.0} | settings
    return DailyScheduler(step, sleep=time.sleep, clock=time, wall_clock=time, **settings)


def recorder():
    days: list[int] = []

    async def step(day: int) -> None:
        days.append(day)

    return days, step


def test_the_example_of_the_docstring():
    assert doctest.testmod(module).failed == 0


def test_days_run_in_order_once_each():
    days, step = recorder()
    scheduler = build(step, start_day=3)
    assert scheduler.ending == "not run" and scheduler.completed_day == 2
    asyncio.run(scheduler.run())
    assert days == [3, 4, 5, 6, 7]
    assert scheduler.completed_day == scheduler.last_day == 7
    assert scheduler.ending == "completed" and not scheduler.is_running


def test_slow_steps_do_not_make_it_drift():
    time, starts = Time(), []

    async def step(day: int) -> None:
        starts.append(time.now)
        time.now += 37.0

    asyncio.run(build(step, time, interval_seconds=100.0).run())
    assert starts == [1000.0, 1100.0, 1200.0, 1300.0, 1400.0]
    assert time.slept == [63.0] * 4


def test_a_step_longer_than_the_interval_is_followed_at_once_and_then_caught_up():
    time, starts = Time(), []

    async def step(day: int) -> None:
        starts.append(time.now)
        time.now += 250.0 if day == 1 else 10.0

    asyncio.run(build(step, time, interval_seconds=100.0).run())
    assert starts == [1000.0, 1250.0, 1260.0, 1300.0, 1400.0]


def test_a_sleep_that_returns_early_is_slept_again():
    time, starts = Time(), []

    async def nap(seconds: float) -> None:
        time.now += min(seconds, 30.0)

    async def step(day: int) -> None:
        starts.append(time.now)

    scheduler = DailyScheduler(step, 2, 100.0, sleep=nap, clock=time, wall_clock=time)
    asyncio.run(scheduler.run())
    assert starts == [1000.0, 1100.0]


def test_stop_completes_the_current_day_and_run_goes_on_later():
    days = []

    async def step(day: int) -> None:
        if day == 2 and 2 not in days:
            scheduler.stop()
            await asyncio.sleep(0)
        days.append(day)

    scheduler = build(step)
    asyncio.run(scheduler.run())
    assert days == [1, 2] and scheduler.ending == "stopped" and scheduler.completed_day == 2
    asyncio.run(scheduler.run())
    assert days == [1, 2, 3, 4, 5] and scheduler.ending == "completed"


def test_stop_ends_the_wait_between_two_days_from_another_thread():
    days, step = recorder()
    waiting = threading.Event()

    async def forever(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    scheduler = DailyScheduler(step, 5, 86400.0, sleep=forever)

    def stopper():
        waiting.wait()
        scheduler.stop()

    thread = threading.Thread(target=stopper)
    thread.start()
    asyncio.run(asyncio.wait_for(scheduler.run(), 10.0))
    thread.join()
    assert days == [1] and scheduler.ending == "stopped"


def test_stop_before_run_is_honoured_once():
    days, step = recorder()
    scheduler = build(step)
    scheduler.stop()
    asyncio.run(scheduler.run())
    assert days == [] and scheduler.ending == "stopped"
    asyncio.run(scheduler.run())
    assert len(days) == 5


@pytest.mark.parametrize("error", [StopRun("end of file"), StopAsyncIteration(), StopIteration()])
def test_a_step_can_end_the_run(error):
    days = []

    async def step(day: int) -> None:
        if day == 3:
            raise error
        days.append(day)

    scheduler = build(step)
    asyncio.run(scheduler.run())
    assert days == [1, 2] and scheduler.ending == "ended by step"
    assert scheduler.completed_day == 2


def test_an_error_leaves_run_and_the_day_is_done_again():
    days = []

    async def step(day: int) -> None:
        days.append(day)
        if days.count(2) == 1 and day == 2:
            raise RuntimeError("pump on fire")

    scheduler = build(step)
    with pytest.raises(RuntimeError, match="pump on fire"):
        asyncio.run(scheduler.run())
    assert scheduler.ending == "failed" and scheduler.completed_day == 1
    asyncio.run(scheduler.run())
    assert days == [1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize("where", ["in the step", "in the wait"])
def test_cancelling_keeps_what_was_done_and_leaves_no_task_behind(where):
    async def main():
        reached = asyncio.Event()
        days = []

        async def hang(*_):
            reached.set()
            await asyncio.Event().wait()

        async def step(day: int) -> None:
            days.append(day)
            if day == 2:
                await hang()

        pause = {"in the step": asyncio.sleep, "in the wait": hang}[where]
        interval = {"in the step": 0.0, "in the wait": 100.0}[where]
        scheduler = DailyScheduler(step, 5, interval, sleep=pause)
        task = asyncio.create_task(scheduler.run())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scheduler.ending == "cancelled" and scheduler.completed_day == 1
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_new_process_goes_on_where_the_last_one_was(tmp_path):
    state, time = tmp_path / "scheduler.json", Time()
    starts, faults = [], [ConnectionError("cable out")]

    async def step(day: int) -> None:
        if day == 3 and faults:
            raise faults.pop()
        starts.append((day, time.now))

    with pytest.raises(ConnectionError):
        asyncio.run(build(step, time, interval_seconds=100.0, state_file=state).run())
    assert json.loads(state.read_text())["completed_day"] == 2
    time.now += 20.0  # the machine is down for a while; day 3 was due at 1200
    second = build(step, time, interval_seconds=100.0, state_file=state)
    assert second.completed_day == 2
    asyncio.run(second.run())
    assert starts == [(1, 1000.0), (2, 1100.0), (3, 1220.0), (4, 1300.0), (5, 1400.0)]
    third = build(step, time, interval_seconds=100.0, state_file=state)
    asyncio.run(third.run())
    assert len(starts) == 5 and third.ending == "completed"


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"completed_day": "x"}'])
def test_an_unreadable_state_file_is_a_clear_error(tmp_path, content):
    state = tmp_path / "scheduler.json"
    state.write_text(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        build(recorder()[1], state_file=state)


def test_a_state_file_of_another_run_is_refused(tmp_path):
    state = tmp_path / "scheduler.json"
    asyncio.run(build(recorder()[1], state_file=state).run())
    with pytest.raises(ConfigError, match="starts on day 1"):
        build(recorder()[1], state_file=state, start_day=2)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"n_days": -1}, "n_days"),
        ({"n_days": 1.5}, "n_days"),
        ({"n_days": True}, "n_days"),
        ({"interval_seconds": -1.0}, "interval_seconds"),
        ({"interval_seconds": float("nan")}, "interval_seconds"),
        ({"interval_seconds": float("inf")}, "interval_seconds"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word):
        build(recorder()[1], **settings)


def test_a_step_that_is_no_coroutine_function_is_refused():
    with pytest.raises(ConfigError, match="async def"):
        asyncio.run(build(lambda day: None).run())
    with pytest.raises(ConfigError, match="coroutine function"):
        build(None)


def test_one_run_at_a_time():
    async def step(day: int) -> None:
        with pytest.raises(ConfigError, match="running already"):
            await scheduler.run()

    scheduler = build(step, n_days=1)
    asyncio.run(scheduler.run())
    assert scheduler.ending == "completed"


def test_no_days_is_a_run_too():
    scheduler = build(recorder()[1], n_days=0)
    asyncio.run(scheduler.run())
    assert scheduler.ending == "completed" and scheduler.completed_day == 0
