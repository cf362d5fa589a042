"""Paging: the runs that a query finds, read as far as somebody wants them."""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgpack

from flightlog.apis.public.client import Client
from flightlog.apis.public.reading import reading
from flightlog.apis.public.run import Run
from flightlog.errors import NotFoundError
from flightlog_storage.run_pages import RunPage
from flightlog_storage.run_query import FoundRun, Place, RunQuery, Window

__all__ = ("Pages", "Project")

GROWTH = 3  # So many times what was read before is found next.
STATES_MAX = 500  # Runs whose states are read at a time, ahead of need.

Project = tuple[str | None, str | None]  # Entity and project; None: all.


class Pages:
    """Pages of `per_page` runs of the first of some projects that there is.

    More is read at a time the more was read before, so that to go through all runs
    takes a few queries and not one a page.
    """

    def __init__(
        self,
        client: Client,
        projects: Sequence[Project],
        query: RunQuery,
        per_page: int,
    ) -> None:
        self.per_page = per_page
        self.last: list[Run] | None = None  # The page that was read last.
        self.projects = list(projects)
        self._client = client
        self._query = query
        self._total: int | None = None  # How many there are, once somebody asked.
        self._read = 0
        self._place: Place | None = None  # Of the last run found so far.
        self._end: Place | None = None  # Of the last run handed out.
        self._found: list[FoundRun] = []  # And not handed out.
        self._ready: dict[tuple[str, str, str], Run] = {}
        self._is_last = False

    @property
    def more(self) -> bool:
        """Whether there is a page that was not read."""
        return bool(self._found) or not self._is_last

    @property
    def cursor(self) -> str | None:
        """An opaque name of the place of the last run that was read."""
        if self._end is None:
            return None
        place: bytes = msgpack.packb(self._end) or b""
        return urlsafe_b64encode(place).decode()

    def count(self) -> int:
        """Return how many runs there are; what is not known is counted now.

        Raises:
            CommError: The home cannot be read, or $regex takes too long.
        """
        if self._total is None:
            self._total = self._page(Window(1, count=True), 0).total or 0
        return self._total

    def read_next(self, counts: bool = False) -> list[Run]:
        """Return the runs of the next page; those deleted meanwhile are left out.

        `counts`: with the first page, all runs are counted.

        Raises:
            CommError: The home cannot be read, or $regex takes too long.
            NotFoundError: There is no such project.
        """
        if len(self._found) < self.per_page and not self._is_last:
            self._find(counts)
        page, self._found = self._found[: self.per_page], self._found[self.per_page :]
        self._load(page)
        keys = [_key(run) for run in page]
        runs = [self._ready.pop(key) for key in keys if key in self._ready]
        self._read += len(page)
        self.last = runs
        self._end = page[-1].place if page else self._end
        return runs

    def _find(self, counts: bool) -> None:
        """Find at least one page more."""
        limit = max(self.per_page, GROWTH * self._read)
        window = Window(limit, self._place, counts)
        states = min(limit, max(self.per_page, STATES_MAX)) if not self._found else 0
        page = self._page(window, states)
        for state in page.states:
            self._ready[state.key] = Run(self._client, *state.key, attrs=state)
        self._found += page.runs
        self._place = page.runs[-1].place if page.runs else self._place
        self._is_last = page.is_last
        if counts:
            self._total = page.total
        elif self._is_last and self._total is None:
            self._total = self._read + len(self._found)

    def _page(self, window: Window, states: int) -> RunPage:
        reader = self._client.reader
        for entity, project in self.projects:
            query = replace(self._query, entity=entity, project=project)
            page = reading(partial(reader.page, query, window, states))
            if page.project_exists or self.last is not None:
                self.projects = [(entity, project)]
                return page
        raise NotFoundError(f"Could not find project {self.projects[0][1]}")

    def _load(self, page: list[FoundRun]) -> None:
        """Read the states of a page, and of some runs after it, that are not there."""
        ahead = [*page, *self._found[: STATES_MAX - len(page)]]
        if all(_key(run) in self._ready for run in page):
            return
        keys = [key for run in ahead if (key := _key(run)) not in self._ready]
        for state in reading(partial(self._client.reader.states_of, keys)):
            self._ready[state.key] = Run(self._client, *state.key, attrs=state)


def _key(run: FoundRun) -> tuple[str, str, str]:
    return run.entity, run.project, run.id
