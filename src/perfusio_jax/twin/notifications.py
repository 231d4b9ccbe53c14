"""Alarms; `twin/alarms` holds them."""

from perfusio_jax.twin.alarms.events import AlarmEvent as AlarmEvent
from perfusio_jax.twin.alarms.events import DispatchReport as DispatchReport
from perfusio_jax.twin.alarms.notifications import AlarmNotifier as AlarmNotifier
