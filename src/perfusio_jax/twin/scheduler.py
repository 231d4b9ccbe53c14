"""The cadence of a run; `twin/loop` holds it."""

from perfusio_jax.twin.loop.scheduler import DailyScheduler as DailyScheduler
