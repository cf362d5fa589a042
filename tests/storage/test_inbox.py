import os
from pathlib import Path

import pytest

from flightlog_storage.inbox import (
    copy_into_inbox,
    inbox_path,
    make_token,
    orphans,
    put_in_inbox,
)

WRITER = "0123456789abcdef" * 2


def test_bytes_are_there_when_put_returns(tmp_path: Path) -> None:
    path = inbox_path(tmp_path, make_token(WRITER, 7))

    assert put_in_inbox(path, [memoryview(b"pix"), b"els"]) == 6

    assert path.read_bytes() == b"pixels"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_is_copied_whole(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(range(256)) * 1000)
    path = inbox_path(tmp_path, make_token(WRITER, 0))
    source = os.open(tmp_path / "source", os.O_RDONLY)
    try:
        assert copy_into_inbox(path, source) == 256_000
    finally:
        os.close(source)

    assert path.read_bytes() == bytes(range(256)) * 1000


def test_a_refused_write_leaves_nothing(tmp_path: Path) -> None:
    path = inbox_path(tmp_path, make_token(WRITER, 0))

    with pytest.raises(OSError, match="Bad file descriptor"):
        copy_into_inbox(path, 1 << 20)

    assert not path.exists()


@pytest.mark.parametrize(
    "token",
    [
        "",
        "..",
        "../log",
        f"{WRITER}-1/..",
        f"{WRITER}-",
        WRITER,
        f"{WRITER}-1\n",
        "a-1",
    ],
)
def test_no_token_leads_out_of_the_inbox(tmp_path: Path, token: str) -> None:
    with pytest.raises(ValueError, match="no token"):
        inbox_path(tmp_path, token)


def test_files_of_writers_that_are_gone_are_orphans(tmp_path: Path) -> None:
    inbox, spool = tmp_path / "inbox", tmp_path / "spool"
    other = WRITER[::-1]
    (spool / WRITER).mkdir(parents=True)
    inbox.mkdir()
    for name in (make_token(WRITER, 1), make_token(other, 2), "stray"):
        (inbox / name).touch()
    (inbox / "folder").mkdir()  # Somebody else's.

    assert orphans(inbox, spool) == {make_token(other, 2), "stray"}
