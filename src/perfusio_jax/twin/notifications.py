"""Alarms; `twin/alarms` holds them."""

from perfusio_jax.twin.alarms.notifications import AlarmEvent as AlarmEvent
from perfusio_jax.twin.alarms.notifications import AlarmNotifier as AlarmNotifier
from perfusio_jax.twin.alarms.notifications import DispatchReport as DispatchReport
