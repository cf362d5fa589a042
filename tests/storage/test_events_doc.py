import json
import re
from pathlib import Path

import msgspec
import pytest

from flightlog_storage.event import EVENT_KINDS, Kind, Rows, Series

PAGE = (Path(__file__).parents[2] / "docs/events.md").read_text()
INTRODUCTION, *SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)
DESCRIBED = {section.split("\n", 1)[0]: section for section in SECTIONS}
SHARED = {"time", "version"}


def fields(section: str, head: str = "field") -> dict[str, str]:
    """Return the fields in the section's table with their defaults."""
    table = section.split(f"| {head} |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", table, re.M)
    return {name: default.strip("`") for name, default in rows}


def declared(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {
        field.name: written(field)
        for field in msgspec.structs.fields(kind)
        if field.name not in SHARED
    }


def written(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        return str(field.default_factory())
    return json.dumps(field.default).replace("null", "nil")


def test_every_kind_is_described_and_no_other() -> None:
    assert list(DESCRIBED) == [kind.__name__ for kind in EVENT_KINDS] + ["Rows"]


@pytest.mark.parametrize("kind", EVENT_KINDS, ids=lambda kind: kind.__name__)
def test_fields_are_described_with_their_defaults(kind: type[msgspec.Struct]) -> None:
    section = DESCRIBED[kind.__name__]

    assert (fields(section) if "| field |" in section else {}) == declared(kind)


def test_shared_fields_are_described() -> None:
    assert fields(INTRODUCTION) == {
        "event": "required",
        "time": "required",
        "version": "1",
    }


def test_rows_and_series_are_described() -> None:
    rows = fields(DESCRIBED["Rows"])
    series = fields(DESCRIBED["Rows"], "field of a series")

    assert list(rows) == [*Rows.__struct_fields__]
    assert list(series) == [*Series.__struct_fields__]


def test_kinds_of_values_are_described() -> None:
    described = re.findall(r"^\| ([A-Z]+) \| (\d) \|", DESCRIBED["Rows"], re.M)

    assert described == [(kind.name, str(int(kind))) for kind in Kind]
