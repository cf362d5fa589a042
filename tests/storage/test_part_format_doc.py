"""The example in docs/part_format.md is what the code writes."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgpack
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flightlog_storage.event import Kind, Rows
from flightlog_storage.parts import (
    GROUP_POINTS_MAX,
    GROUP_POINTS_MIN,
    INDEX_KEY,
    SCHEMA,
    Span,
    write_part,
)
from flightlog_storage.points import Points
from flightlog_storage.projector import WHOLE_POINTS_MAX
from flightlog_storage.rows import decode

DOCUMENT = (Path(__file__).parents[2] / "docs" / "part_format.md").read_text()
EXAMPLE = DOCUMENT.partition("## Example")[2]


@pytest.fixture
def part(tmp_path: Path) -> pq.ParquetFile:
    """A part with the example's points, as the daemon decodes them."""
    pack = msgpack.packb
    payload = b"".join(
        [
            pack([[0, ["loss", "note"]], [1, ["loss"]]]),
            pack([0, 0, 1_700_000_000.0, 0.5, "a"]),
            pack([1, 7, 1_700_000_001.25, 2**60]),
        ]
    )
    points = Points()
    for _, rows in decode(payload, 2):
        assert isinstance(rows, Rows)
        points.add(rows, 0)
    write_part(tmp_path, "part.parquet", points)
    return pq.ParquetFile(tmp_path / "part.parquet")


def lines_of(table: pa.Table) -> Iterator[str]:
    """Yield the table as the document shows it, one blank between cells."""
    yield " ".join(table.column_names)
    at = table.column_names.index("time")
    texts = table["time"].cast(pa.timestamp("us")).cast(pa.string())
    columns = table.set_column(at, "time", texts).columns
    for row in zip(*(column.to_pylist() for column in columns), strict=True):
        yield " ".join(map(str, row))


def block(language: str) -> str:
    return EXAMPLE.partition(f"```{language}\n")[2].partition("```")[0]


def test_rows_in_the_document_are_what_the_code_writes(part: pq.ParquetFile) -> None:
    lines = [" ".join(line.split()) for line in block("").splitlines()]

    assert lines == list(lines_of(part.read()))


def test_index_in_the_document_is_what_the_code_writes(part: pq.ParquetFile) -> None:
    written = json.loads(part.metadata.metadata[INDEX_KEY])

    assert json.loads(block("json")) == written


@pytest.mark.parametrize("name", [*SCHEMA.names, *Span._fields])
def test_columns_and_lists_are_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENT


@pytest.mark.parametrize(
    "limit", [GROUP_POINTS_MIN, GROUP_POINTS_MAX, WHOLE_POINTS_MAX]
)
def test_limits_are_documented(limit: int) -> None:
    assert f"{limit:,}" in DOCUMENT


def test_kinds_are_documented_with_their_numbers() -> None:
    kinds = ", ".join(f"{kind.name.lower()} {kind.value}" for kind in Kind)

    assert kinds in " ".join(DOCUMENT.split())
