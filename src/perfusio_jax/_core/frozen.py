"""A dictionary that can be compared, hashed and kept in a static field."""

from collections.abc import Iterator, Mapping
from typing import Any


class FrozenStrings(Mapping[str, str]):
    """Immutable string-to-string mapping; equal to any mapping with the same items."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any] | None = None) -> None:
        self._items = {str(k): str(v) for k, v in sorted((items or {}).items())}

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)
