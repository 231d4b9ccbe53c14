"""Base of all configuration objects: strict, immutable, readable in its refusals."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from perfusio_jax._core.errors import ConfigError, UnitError
from perfusio_jax._core.limits import SETTINGS_BYTES, parse_json, parse_toml, read_file
from perfusio_jax._core.text import in_line


class ConfigModel(BaseModel):
    """Base of all configuration: immutable, no unknown keys, TOML and JSON round trip."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    if not TYPE_CHECKING:  # keep the fields' own signature for type checkers

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                causes = [item.get("ctx", {}).get("error") for item in error.errors()]
                is_unit = any(isinstance(cause, UnitError) for cause in causes)
                kind = UnitError if is_unit else ConfigError
                raise kind(_readable(type(self), error)) from None

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked like a new object.

        Args:
            **changes: New values by field name.

        Returns:
            The changed copy.

        Raises:
            ConfigError: If the result is not a legal configuration.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**{**values, **changes})

    def to_json(self, path: Path | str | None = None) -> str:
        """Write as JSON.

        Args:
            path: File to write as well; nothing is written if omitted.

        Returns:
            The text.
        """
        text = self.model_dump_json(indent=2) + "\n"
        return _write(text, path)

    def to_toml(self, path: Path | str | None = None) -> str:
        """Write as TOML; fields that are None are left out, which reads back as None.

        Args:
            path: File to write as well; nothing is written if omitted.

        Returns:
            The text.
        """
        text = tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))
        return _write(text, path)

    @classmethod
    def from_json(cls, source: Path | str) -> Self:
        """Read JSON.

        Args:
            source: A file (a `Path`, or a string that ends in `.json`), or the text itself.

        Returns:
            The checked object.

        Raises:
            ConfigError: If the file is missing, is not JSON, or is not a legal configuration.
        """
        text, where = _read(source, ".json")
        data = parse_json(text, where, error=ConfigError)
        return cls._from_mapping(data, where)

    @classmethod
    def from_toml(cls, source: Path | str) -> Self:
        """Read TOML.

        Args:
            source: A file (a `Path`, or a string that ends in `.toml`), or the text itself.

        Returns:
            The checked object.

        Raises:
            ConfigError: If the file is missing, is not TOML, or is not a legal configuration.
        """
        text, where = _read(source, ".toml")
        return cls._from_mapping(parse_toml(text, where), where)

    @classmethod
    def _from_mapping(cls, data: Any, where: str) -> Self:
        if not isinstance(data, Mapping):
            raise ConfigError(
                f"{where} holds a {type(data).__name__}; a {cls.__name__} is a table of "
                f"{', '.join(cls.model_fields)}."
            )
        try:
            return cls(**data)
        except ConfigError as error:
            raise type(error)(f"{where}: {error}") from None


def _readable(model: type[BaseModel], error: ValidationError) -> str:
    """One paragraph per mistake, naming the field, what was given and what is allowed."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, model.model_fields, n=1, cutoff=0.5)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            allowed = ", ".join(model.model_fields)
            lines.append(f"unknown key '{where}'.{hint} Allowed keys: {allowed}.")
        elif item["type"] == "missing":
            lines.append(f"'{where}' is missing.")
        elif item["type"] == "value_error":
            reason = str(item["ctx"]["error"]) if "ctx" in item else item["msg"]
            lines.append(f"{where}: {reason}" if where else reason)
        else:
            why = item["msg"][:1].lower() + item["msg"][1:]
            lines.append(f"'{where}' was given {in_line(item['input'])}: {why}.")
    name = model.__name__
    return " ".join(line if line.startswith(name) else f"{name}: {line}" for line in lines)


def _write(text: str, path: Path | str | None) -> str:
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _read(source: Path | str, suffix: str) -> tuple[str, str]:
    """Text of a source and what to call it in an error."""
    is_file = isinstance(source, Path) or ("\n" not in source and source.endswith(suffix))
    if not is_file:
        return str(source), "the given text"
    path = Path(source)
    try:
        content = read_file(path, most=SETTINGS_BYTES, error=ConfigError)
        return content.decode("utf-8-sig"), str(path)
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error}.") from None
