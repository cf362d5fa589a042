"""Arguments: whatever people configure a run with, as values that can be stored.

A value of a row that cannot be stored is an error, for it is a slip. A config is made
by others, in part: what has no form of its own here is kept as its text.
"""

import argparse
import datetime
import enum
import math
import os
import types
from collections.abc import Mapping, Sequence, Set
from decimal import Decimal
from typing import Any, TypeGuard

from flightlog._values import ARRAY_ELEMENTS_MAX, DEPTH_MAX, plain, plain_text

__all__ = ("CYCLE", "UNREADABLE", "as_arguments", "plain_argument")

CYCLE = "<refers to itself>"
TOO_DEEP = "<nested too deeply>"
UNREADABLE = "<cannot be read: {}>"

_AS_VALUES = (Decimal, datetime.date, datetime.time, datetime.timedelta)


def as_arguments(args: object) -> object:
    """Return a script's arguments: a mapping or a list as it is, else what it holds.

    Raises:
        TypeError: It is none of these and has no fields.
    """
    if isinstance(args, Mapping) or _is_list(args):
        return args
    fields = None if isinstance(args, type) else _fields(args)
    if fields is None and not isinstance(args, type):
        fields = getattr(args, "__dict__", None)
    if fields is None:
        raise TypeError(
            "log_config: args must be a dict, a list, a namespace or another object "
            f"with fields, not {args!r}"
        )
    return fields


def plain_argument(value: object, above: tuple[int, ...] = ()) -> Any:
    """Return `value` as None, bool, int, float, str, list or dict of such.

    `above` has the ids of what it lies in: a value that holds itself is cut there.

    Raises:
        TypeError: A dict has two keys of equal text, or a number cannot be stored.
    """
    if value is None or isinstance(value, bool | int | float | str | enum.Enum):
        inner = value.value if isinstance(value, enum.Enum) else value
        return plain("log_config", inner) if inner is value else plain_argument(inner)
    if isinstance(value, _AS_VALUES):
        return plain("log_config", value)
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, os.PathLike):
        return plain_text(os.fsdecode(value))
    return _plain_container(value, above)


def _plain_container(value: object, above: tuple[int, ...]) -> Any:
    if id(value) in above:
        return CYCLE
    if len(above) >= DEPTH_MAX:
        return TOO_DEEP
    within = (*above, id(value))
    fields = value if isinstance(value, Mapping) else _fields(value)
    if fields is not None:
        return _plain_mapping(fields, within)
    if isinstance(value, Set):
        return sorted((plain_argument(item, within) for item in value), key=repr)
    if _is_list(value):
        return [_item(value, index, within) for index in range(len(value))]
    return _plain_foreign(value, within)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _plain_mapping(
    fields: Mapping[Any, Any], within: tuple[int, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in fields:
        text = plain_text(str(key.value if isinstance(key, enum.Enum) else key))
        if text in found:
            raise TypeError(f"log_config: there are two keys {text!r} in one dict")
        found[text] = _item(fields, key, within)
    return found


def _item(container: Any, key: object, within: tuple[int, ...]) -> Any:
    """Return an item as a plain value; one that its container refuses as a text.

    OmegaConf does so for what is missing, and for references that lead nowhere.
    """
    try:
        item = container[key]
    except Exception as error:  # noqa: BLE001  # Whatever a foreign container raises.
        return plain_text(UNREADABLE.format(f"{type(error).__name__}: {error}"))
    return plain_argument(item, within)


def _fields(value: object) -> Mapping[Any, Any] | None:
    """Return the fields of what is a record of some kind."""
    kind = type(value)
    if isinstance(value, argparse.Namespace | types.SimpleNamespace):
        return vars(value)
    names = getattr(kind, "__dataclass_fields__", None) or getattr(
        kind, "__struct_fields__", None
    )
    if names is None and hasattr(kind, "__attrs_attrs__"):
        names = [each.name for each in getattr(kind, "__attrs_attrs__", ())]
    if names is None:  # Of pydantic, and of named tuples.
        names = getattr(kind, "model_fields", None) or getattr(kind, "_fields", None)
    if names is None or isinstance(value, type):
        return None
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _plain_foreign(value: Any, within: tuple[int, ...]) -> Any:
    """Return an array or a tensor as numbers; of anything else what it is called."""
    if hasattr(value, "shape") and hasattr(value, "tolist"):
        try:
            if math.prod(value.shape) > ARRAY_ELEMENTS_MAX:
                return plain_argument(value.tolist(), within)
            return plain("log_config", value)
        except (TypeError, ValueError, RuntimeError):
            return plain_text(str(value))
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):  # Of a class or function: its text has an address.
        return plain_text(f"{getattr(value, '__module__', None)}.{name}")
    return plain_text(str(value))
