"""Queries: the statements in the .sql files by name."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

__all__ = ("QUERIES", "SCHEMA")

_MARK = "-- name: "


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _parse(text: str) -> Mapping[str, str]:
    blocks = text.split(_MARK)[1:]
    named = (block.split("\n", 1) for block in blocks)
    return MappingProxyType({name.strip(): body.strip() for name, body in named})


_PARTS = ("", "artifact_", "asset_")

QUERIES = _parse("".join(_read(f"{part}queries.sql") for part in _PARTS))
SCHEMA = "".join(_read(f"{part}schema.sql") for part in _PARTS)
