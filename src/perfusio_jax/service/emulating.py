"""`perfusio-jax serve-emulator --process`: a rack of described cultures over OPC UA."""

from collections.abc import Callable, Sequence

from perfusio_jax._core import ConfigError
from perfusio_jax.connectors import plant_mechanism
from perfusio_jax.connectors.opcua.serve import Serving, serve_emulator
from perfusio_jax.connectors.opcua.shown import Shown, shown_of
from perfusio_jax.process import read_process
from perfusio_jax.simulator import DescribedRack, virtual_plant
from perfusio_jax.twin.decision.cadence import Cadence


def serve_cultures(
    settings: Serving,
    processes: Sequence[str],
    mechanisms: Sequence[str],
    *,
    every_h: float,
    say: Callable[[str], None],
) -> None:
    """Serve a rack of described cultures until SIGINT or SIGTERM.

    Args:
        settings: What to serve, and how.
        processes: Cultures, built-in names or files, of the vessels in turn.
        mechanisms: Mechanism of each culture, `monod` or `module:Class`; `monod` where not given.
        every_h: Hours between samples [h].
        say: Called with each line of what is to be told.

    Raises:
        ConfigError: If there is no such culture or mechanism, they do not fit, or clones are
            given.
        ConnectorError: If the port is taken.
    """
    if settings.clones:
        raise ConfigError("--clone is of the reference culture; a process says its own.")
    rack, shows = rack_of(
        processes, mechanisms, n=settings.reactors, every_h=every_h, seed=settings.seed
    )
    serve_emulator(settings, say=say, rack=rack, shows=shows)


def rack_of(
    processes: Sequence[str],
    mechanisms: Sequence[str],
    *,
    n: int,
    every_h: float = 24.0,
    seed: int = 42,
) -> tuple[DescribedRack, list[Shown]]:
    """A rack of described cultures, in turn, and what its vessels show.

    Args:
        processes: Built-in names or files.
        mechanisms: Of each; `monod` where not given.
        n: Number of vessels.
        every_h: Hours between samples [h].
        seed: Seed of the first vessel's noise.

    Raises:
        ConfigError: If there is no such culture or mechanism, or they do not fit.
    """
    if len(mechanisms) > len(processes):
        raise ConfigError(
            f"{len(mechanisms)} mechanisms were given for {len(processes)} cultures; the first "
            "--mechanism is of the first --process, and so on."
        )
    Cadence(every_h)  # refuses what nobody samples at
    found = [read_process(which) for which in processes]
    named = [*mechanisms, *[None] * len(found)][: len(found)]
    plants = [virtual_plant(p, plant_mechanism(p, m)) for p, m in zip(found, named, strict=True)]
    shows = [shown_of(p, every_h) for p in found]
    turn = [i % len(found) for i in range(n)]
    rack = DescribedRack([plants[i] for i in turn], interval_h=every_h, seed=seed)
    return rack, [shows[i] for i in turn]
