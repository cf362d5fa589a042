"""A paginator: a list that is read at its first use and handed out by pages.

Pages are what W&B's users know. Here all is read at once, from files; what `objects`
holds grows by `per_page` as it is used, as theirs does.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, overload

from flightlog.apis.public.reading import check_per_page

__all__ = ("Paginator",)

_Item = TypeVar("_Item")


class Paginator(Generic[_Item]):
    """A sized list with pages; each `iter()` is independent of all others."""

    def __init__(
        self, what: str, find: Callable[[], list[_Item]], per_page: int
    ) -> None:
        """Hand out what `find` returns.

        Raises:
            BadArgumentError: `per_page` is no positive int.
        """
        self.per_page = check_per_page(per_page)
        self._what = what
        self._find = find
        self._found: list[_Item] | None = None
        self._count = 0  # Of those in `objects`.
        self._next = 0

    @property
    def objects(self) -> list[_Item]:
        """Those of the pages used so far."""
        return [] if self._found is None else self._found[: self._count]

    @property
    def length(self) -> int:
        """How many there are in all."""
        return len(self)

    @property
    def more(self) -> bool:
        """Whether there are pages that were not used yet."""
        return self._found is None or self._count < len(self._found)

    @property
    def cursor(self) -> str | None:
        """Where the next page begins; None before the first."""
        return str(self._count) if self._count else None

    def convert_objects(self) -> list[_Item]:
        """Return those of the last page that was used."""
        start = (self._count - 1) // self.per_page * self.per_page
        return self.objects[max(0, start) :]

    def next(self) -> _Item:
        """Return the next one.

        Raises:
            StopIteration: There are no more.
        """
        found = self._load(self._next + 1)
        if self._next >= len(found):
            raise StopIteration
        self._next += 1
        return found[self._next - 1]

    __next__ = next

    def __iter__(self) -> Iterator[_Item]:
        index = 0
        while index < len(found := self._load(index + 1)):
            yield found[index]
            index += 1

    def __len__(self) -> int:
        return len(self._load(1))

    @overload
    def __getitem__(self, index: int) -> _Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[_Item]: ...
    def __getitem__(self, index: int | slice) -> _Item | list[_Item]:
        found = self._load(1)
        if isinstance(index, int) and index >= 0:
            self._load(index + 1)
        else:
            self._load(len(found))
        return found[index]

    def _load(self, count: int) -> list[_Item]:
        """Return all, with at least `count` of them handed out."""
        if self._found is None:
            self._found = self._find()
        pages = -(-count // self.per_page)
        self._count = max(self._count, min(pages * self.per_page, len(self._found)))
        return self._found

    def __repr__(self) -> str:
        return f"<{self._what} ({len(self)})>"
