"""One exception tree for the whole library.

Every message says what was wrong, what was given, what is allowed and what to do.
"""


class PerfusioError(Exception):
    """Root of every error this library raises on purpose."""


class ConfigError(PerfusioError, ValueError):
    """A configuration that cannot be used: refused when it is made, not when it is run."""


class UnitError(ConfigError):
    """A unit that is unknown, or that measures something other than the named column."""


class DataError(PerfusioError, ValueError):
    """A table, sample or array that breaks its contract."""


class PrecisionError(PerfusioError, RuntimeError):
    """A computation that needs 64-bit floats was started in 32-bit mode."""


class SimulationError(PerfusioError, RuntimeError):
    """A numerical integration or optimisation failed at an outermost call."""


class ConnectorError(PerfusioError, RuntimeError):
    """The outside world did not answer, or not in the agreed form."""


class SampleNotReady(ConnectorError):
    """The sample asked for is not there *yet*: ask again later."""


class AccessRefused(ConnectorError):
    """The other side does not let us in: asking again changes nothing."""


class RunLockedError(ConnectorError):
    """A run folder is in use by another live process."""


class AuditError(PerfusioError):
    """The audit trail could not be written, or does not verify."""


class GateError(PerfusioError, PermissionError):
    """The write gate refused a set-point."""


class StopRun(PerfusioError):
    """Raised by a step to end a scheduled run early and in good order."""
