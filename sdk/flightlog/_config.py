"""The config of a live run: a mapping whose changes are recorded."""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from flightlog._values import plain, plain_text
from flightlog.errors import ConfigError
from flightlog_storage.codec import unwrapped

__all__ = ("Config", "as_config")

_Record = Callable[[dict[str, Any], list[str]], None]


def as_config(value: object) -> dict[str, Any]:
    """Return a config given as mapping or argparse namespace as a dict.

    Raises:
        TypeError: It is neither, or a key is no str.
    """
    if value is None:
        return {}
    given = value
    if not isinstance(value, Mapping):
        value = (
            getattr(value, "__dict__", None) if not isinstance(value, type) else None
        )
    if not isinstance(value, Mapping):
        raise TypeError(
            "config must be a dict or an argparse namespace, not "
            f"{type(given).__qualname__}: read a file with yaml.safe_load or json.load"
        )
    wrong = [key for key in value if not isinstance(key, str)]
    if wrong:
        raise TypeError(f"config keys must be str; {wrong[0]!r} is not")
    return {key.strip("-"): item for key, item in value.items()}


class Config(MutableMapping[str, Any]):
    """Item and attribute access to what a run was configured with.

    As in W&B a key is not changed to another value by accident: that raises
    ConfigError unless `update(…, allow_val_change=True)` or the run allows it.
    """

    def __init__(self, record: _Record, allow_val_change: bool = False) -> None:
        object.__setattr__(self, "_values", {})
        object.__setattr__(self, "_record", record)
        object.__setattr__(self, "_allow_val_change", allow_val_change)

    def update(  # type: ignore[override]  # W&B's signature, which users know.
        self, values: object = None, allow_val_change: bool | None = None, **more: Any
    ) -> None:
        """Set several keys.

        Raises:
            ConfigError: A key has another value already and may not change.
            TypeError: A value cannot be stored.
        """
        self._set({**as_config(values), **more}, allow_val_change)

    def setdefaults(self, values: object) -> None:
        """Set the keys that are not set yet."""
        given = as_config(values)
        self._set({key: given[key] for key in given if key not in self._values}, None)

    def as_dict(self) -> dict[str, Any]:
        return dict(self._values)

    def restore(self, values: Mapping[str, Any]) -> None:
        """Take over the values of a resumed run, which are recorded already."""
        self._values.update(values)

    def _set(self, values: dict[str, Any], allow_val_change: bool | None) -> None:
        stored = {plain_text(key): plain(key, values[key]) for key in values}
        known = unwrapped(stored)
        if not (
            self._allow_val_change if allow_val_change is None else allow_val_change
        ):
            for key, value in known.items():
                if key in self._values and not _same(self._values[key], value):
                    raise ConfigError(
                        f"config key {key!r} is {self._values[key]!r} and would become "
                        f"{value!r}; use config.update(…, allow_val_change=True)"
                    )
        changes = {
            key: value
            for key, value in stored.items()
            if key not in self._values or not _same(self._values[key], known[key])
        }
        if changes:
            self._record(changes, [])
            self._values.update(unwrapped(changes))

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._set(as_config({key: value}), None)

    def __delitem__(self, key: str) -> None:
        if key not in self._values:
            raise KeyError(key)
        self._record({}, [key])
        del self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__") or key not in self._values:
            raise AttributeError(f"config has no key {key!r}")
        return self._values[key]

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __repr__(self) -> str:
        return repr(self._values)


def _same(one: object, other: object) -> bool:
    kinds = {type(one), type(other)}
    if len(kinds) > 1 and kinds != {int, float}:
        return False
    return one == other or repr(one) == repr(other)
