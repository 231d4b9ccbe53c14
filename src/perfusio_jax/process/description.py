"""A culture as a value: its quantities, what is set, and what flows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from perfusio_jax._core import ConfigError
from perfusio_jax._core.hints import did_you_mean

from .parts import (
    REST,
    Control,
    Name,
    Part,
    Quantity,
    Stream,
    dimensions,
    flow_per_biomass,
    is_per_cell,
)


class Process(Part):
    """One kind of culture: everything that is laid out by it reads names and units here.

    Structure is static and hashable; numbers that somebody might sweep (compositions, flows,
    volumes) are arguments of what is computed with it. Arrays have the order of the tuples here:
    `K` carried quantities, `M` controls.

    Example:
        >>> from perfusio_jax.process import CHO_PERFUSION
        >>> CHO_PERFUSION.carried[:2], CHO_PERFUSION.closing.name
        (('Xv', 'Xd'), 'harvest')

    Raises:
        ConfigError: For names used twice or unknown, controls nobody acts on, and streams whose
            balance cannot be kept.
    """

    came_later = ("strains",)

    name: Name
    """Name of the culture."""
    description: str = ""
    """A sentence for people."""
    volume_L: float = Field(gt=0.0)
    """Working volume at the start [L]."""
    quantities: tuple[Quantity, ...]
    """What the culture consists of, in array order."""
    controls: tuple[Control, ...] = ()
    """What can be set, in array order."""
    streams: tuple[Stream, ...] = ()
    """What flows; none in a batch."""
    biomass: str | None = None
    """The carried quantity that rates per cell refer to; None where rates are volumetric."""
    strains: tuple[str, ...] = ()
    """Carried quantities that grow by themselves beside `biomass`, in its unit: each by a rate per
    itself, and rates of the rest are per all of them together."""

    @property
    def carried(self) -> tuple[str, ...]:
        """Names of the quantities that obey a mass balance, in array order."""
        return tuple(q.name for q in self.quantities if q.kind == "carried")

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the states that streams do not carry."""
        return tuple(q.name for q in self.quantities if q.kind == "level")

    @property
    def readings(self) -> tuple[str, ...]:
        """Names of what is measured."""
        return tuple(q.name for q in self.quantities if q.is_measured)

    @property
    def growers(self) -> tuple[str, ...]:
        """The biomass and the strains beside it."""
        return () if self.biomass is None else (self.biomass, *self.strains)

    @property
    def rates_per(self) -> str:
        """What rates are counted per, in words; empty where they are volumetric."""
        own = ", those of a strain itself per that strain" if self.strains else ""
        return " + ".join(self.growers) + own

    @property
    def online(self) -> tuple[str, ...]:
        """Names of what a probe reads all the time, samples or not."""
        return tuple(q.name for q in self.quantities if q.is_online)

    @property
    def latent(self) -> tuple[str, ...]:
        """Names of carried quantities and levels that nobody measures."""
        return tuple(q.name for q in self.quantities if not q.is_measured and q.kind != "derived")

    @property
    def control_names(self) -> tuple[str, ...]:
        """Names of the controls, in array order."""
        return tuple(c.name for c in self.controls)

    @property
    def boluses(self) -> tuple[str, ...]:
        """Names of the controls that act at their own sample only."""
        return tuple(c.name for c in self.controls if c.role == "bolus")

    @property
    def closing(self) -> Stream | None:
        """The stream that keeps the volume; None where the volume moves or nothing flows."""
        return next((s for s in self.streams if s.flow == REST), None)

    @property
    def is_constant_volume(self) -> bool:
        """Whether the volume stays as it is."""
        if any(c.brings for c in self.controls):
            return False
        return not self.streams or self.closing is not None

    @property
    def may_move(self) -> bool:
        """Whether the volume may move: no stream keeps it, and something flows or is given.

        A bolus adds an amount, and the volume it comes in where its control says what it `brings`;
        else that volume is what a table records.
        """
        return self.closing is None and bool(self.streams or self.boluses)

    def quantity(self, name: str) -> Quantity:
        """A quantity by its name.

        Raises:
            ConfigError: If there is none.
        """
        return _named(name, self.quantities, f"quantity of {self.name}")

    def control(self, name: str) -> Control:
        """A control by its name.

        Raises:
            ConfigError: If there is none.
        """
        return _named(name, self.controls, f"control of {self.name}")

    def differences(self, other: "Process") -> list[str]:
        """In what two processes differ, one sentence each; empty if they are the same.

        Whether a probe reads something changes no culture, and no model of it.
        """
        found = []
        if self.volume_L != other.volume_L:
            found.append(f"volume_L is {self.volume_L:g} and {other.volume_L:g}")
        if self.biomass != other.biomass:
            found.append(f"biomass is {self.biomass or 'none'} and {other.biomass or 'none'}")
        if self.strains != other.strains:
            both = (", ".join(p.strains) or "none" for p in (self, other))
            found.append("strains are {} and {}".format(*both))
        for kind in ("quantities", "controls", "streams"):
            mine, theirs = ({p.name: p for p in getattr(x, kind)} for x in (self, other))
            found += [f"{name} is in the first only" for name in mine if name not in theirs]
            found += [f"{name} is in the second only" for name in theirs if name not in mine]
            for name in (n for n in mine if n in theirs):
                one, two = (p[name].model_dump(exclude={"is_online"}) for p in (mine, theirs))
                found += [
                    f"{name}: {key} is {one[key]!r} and {two[key]!r}"
                    for key in one
                    if one[key] != two[key]
                ]
            shared = [[n for n in side if n in mine and n in theirs] for side in (mine, theirs)]
            if shared[0] != shared[1]:
                found.append(f"the order of the {kind} differs: {shared[0]} and {shared[1]}")
        return found

    @model_validator(mode="after")
    def _fits(self) -> "Process":
        if not self.quantities:
            raise ConfigError("a process has at least one quantity.")
        _refuse_twice([p.name for p in (*self.quantities, *self.controls)], "quantity or control")
        _refuse_twice([s.name for s in self.streams], "stream")
        _refuse_twice([s.total for s in self.streams if s.total], "recorded total")
        for control in self.controls:
            if control.quantity is not None:
                added = self.quantity(control.quantity)
                _check_unit(control, added)
            for name in control.brings:
                self._check_brought(control, name)
        self._check_references()
        for stream in self.streams:
            self._check_stream(stream)
        self._check_balance()
        self._check_use()
        self._check_per_cell()
        self._check_strains()
        return self

    def _check_strains(self) -> None:
        if not self.strains:
            return
        named = ", ".join(self.strains)
        if self.biomass is None:
            raise ConfigError(f"strains are {named}, and biomass names none; name the first there.")
        if len({self.biomass, *self.strains}) <= len(self.strains):
            raise ConfigError(
                f"strains are {named} beside biomass {self.biomass}; name each strain once, and "
                "the biomass not among them."
            )
        unit = self.quantity(self.biomass).unit
        for name in self.strains:
            q = self.quantity(name)
            if q.kind != "carried" or q.unit != unit:
                raise ConfigError(
                    f"strain {name} is a {q.kind} quantity in {q.unit}; a carried one in {unit}, "
                    f"the unit of {self.biomass}, is needed: they are counted together."
                )

    def _check_brought(self, control: Control, name: str) -> None:
        quantity = self.quantity(name)
        if quantity.kind != "carried":
            raise ConfigError(
                f"control {control.name}: {name} is a {quantity.kind}; only what is carried is "
                f"given: {', '.join(self.carried) or 'nothing here'}."
            )
        if self.closing is not None:
            raise ConfigError(
                f"control {control.name}: it brings volume, and stream {self.closing.name} keeps "
                "the volume; give the amount without brings, or take flow = 'rest' off the stream."
            )

    def _check_per_cell(self) -> None:
        for control in self.controls:
            if control.role != "flow" or not is_per_cell(control.unit):
                continue
            if self.biomass is None:
                raise ConfigError(
                    f"control {control.name} is in {control.unit}, and {self.name} names no "
                    "biomass that it could be per."
                )
            flow_per_biomass(control.unit, self.quantity(self.biomass).unit, control.name)

    def _check_references(self) -> None:
        carried = f"carried are {', '.join(self.carried) or 'none'}"
        for q in self.quantities:
            parts = [self.quantity(name) for name in q.of]
            for part in parts:
                if part.kind != "carried":
                    raise ConfigError(
                        f"{q.name}: its formula is of {part.name}, a {part.kind}; {carried}."
                    )
            if len({part.unit for part in parts}) > 1:
                units = " and ".join(f"{part.name} [{part.unit}]" for part in parts)
                raise ConfigError(f"{q.name}: {q.formula} is of {units}; they need one unit.")
        if self.biomass is not None and self.quantity(self.biomass).kind != "carried":
            raise ConfigError(
                f"biomass is {self.biomass}, a {self.quantity(self.biomass).kind}; {carried}."
            )

    def _check_stream(self, stream: Stream) -> None:
        for name in (*stream.carries, *stream.adds, *stream.passes):
            if self.quantity(name).kind != "carried":
                raise ConfigError(
                    f"stream {stream.name}: {name} is a {self.quantity(name).kind}; only what is "
                    f"carried flows: {', '.join(self.carried) or 'nothing here'}."
                )
        named = {n: v for n, v in stream.carries.items() if isinstance(v, str)}
        for name, by in (*named.items(), *stream.adds.items()):
            control = self.control(by)
            if control.role != "composition" or control.quantity != name:
                raise ConfigError(
                    f"stream {stream.name}: {by} is a {control.role} of "
                    f"{control.quantity or 'nothing'}; {name} of a stream is set by a composition "
                    f"of {name}."
                )
        if stream.flow != REST and self.control(stream.flow).role not in ("flow", "target"):
            raise ConfigError(
                f"stream {stream.name}: its flow is {stream.flow}, a control of role "
                f"{self.control(stream.flow).role}; a flow or a target sets it, or {REST!r}."
            )

    def _check_balance(self) -> None:
        closing = [s for s in self.streams if s.flow == REST]
        if len(closing) > 1:
            raise ConfigError(
                f"{' and '.join(s.name for s in closing)} both close the volume; what the others "
                "leave of the balance can be given to one stream only."
            )
        directions = {s.direction for s in self.streams if s.flow != REST}
        for stream in closing:
            needed = "in" if stream.direction == "out" else "out"
            if needed not in directions:
                raise ConfigError(
                    f"stream {stream.name} is to close the volume, and nothing goes {needed}; "
                    "there is nothing to balance."
                )

    def _check_use(self) -> None:
        used = {s.flow for s in self.streams}
        for s in self.streams:
            used |= {v for v in s.carries.values() if isinstance(v, str)} | set(s.adds.values())
        for control in self.controls:
            if control.role in ("flow", "composition", "target") and control.name not in used:
                raise ConfigError(
                    f"control {control.name}: nobody acts on it; a {control.role} stands under "
                    f"{'carries or adds' if control.role == 'composition' else 'flow'} of a stream."
                )
        flows = [s.flow for s in self.streams if s.flow != REST]
        _refuse_twice(flows, "flow of a stream")


def read_process(source: Path | str) -> Process:
    """A process by name, or from a `process.toml`.

    Args:
        source: A built-in name, such as `cho_perfusion`, or a file.

    Raises:
        ConfigError: If there is no such process or file, or it describes none.
        UnitError: For a unit nobody knows.
    """
    from .built_in import BUILT_IN

    text = str(source)
    if text in BUILT_IN:
        return BUILT_IN[text]
    if not text.endswith(".toml"):
        raise ConfigError(
            f"there is no process {text!r}{did_you_mean([text], BUILT_IN)}; built in are "
            f"{', '.join(BUILT_IN)}, others are files that end in .toml."
        )
    return Process.from_toml(Path(text))


def _named(name: str, parts: Iterable[Any], what: str) -> Any:
    by_name = {p.name: p for p in parts}
    if name not in by_name:
        raise ConfigError(
            f"{name!r} is no {what}{did_you_mean([name], by_name)}; there are "
            f"{', '.join(by_name) or 'none'}."
        )
    return by_name[name]


def _refuse_twice(names: list[str], what: str) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)}: named twice as {what}; names are unique.")


def _check_unit(control: Control, quantity: Quantity) -> None:
    """A composition or target has its quantity's unit, to the letter: nothing is converted."""
    if control.role == "bolus":
        powers = dimensions(control.unit)
        amount = {k: v for k, v in dimensions(quantity.unit).items() if k != "length"}
        if powers not in (amount, {"length": 3}):
            raise ConfigError(
                f"control {control.name}: a bolus of {quantity.name} [{quantity.unit}] is an "
                f"amount or a volume, not {control.unit!r}."
            )
    elif control.unit != quantity.unit:
        raise ConfigError(
            f"control {control.name}: {control.unit!r} is not the unit of {quantity.name}, "
            f"{quantity.unit!r}; state it in that."
        )
