"""Runs: the runs of a project that pass a filter, in order."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any, overload

from flightlog.apis.public.client import Client
from flightlog.apis.public.histories import Join, Method, Sample
from flightlog.apis.public.paging import Pages, Project
from flightlog.apis.public.reading import check_per_page, checked
from flightlog.apis.public.run import Run
from flightlog.apis.public.run_table import configs_of, summaries_of
from flightlog.apis.public.sweep_histories import (
    Format,
    check_format,
    sweep_histories,
)
from flightlog.errors import BadArgumentError, NotFoundError
from flightlog_storage.filters import parse_filter
from flightlog_storage.run_query import OrderTerm, RunQuery, parse_order

__all__ = ("Run", "Runs")


class Runs(Sequence["Run"]):
    """The runs of a project that pass a filter, in order; read page by page at need.

    Every iterator is one of its own, over pages that are read once.
    """

    # The signature is W&B's, which users know.
    def __init__(  # noqa: PLR0913
        self,
        client: Client,
        entity: str | None,
        project: str | None,
        filters: Mapping[str, Any] | None = None,
        order: str | None = None,
        per_page: int = 50,
        include_sweeps: bool = True,
    ) -> None:
        """Describe which runs; none is read yet.

        Args:
            client: `Api.client`.
            entity: Whose runs; None: all entities'.
            project: Of which project; None: of all.
            filters: Which of them, a dict in MongoDB's style; by default all.
            order: Fields with + or - before, joined with commas; "asc" and "desc" are
                by `created_at`. By default the newest first.
            per_page: How many runs a page has.
            include_sweeps: Accepted; there are no sweeps.

        Raises:
            BadArgumentError: An argument is wrong, and how.
        """
        for what, name in (("entity", entity), ("project", project)):
            if name is not None and (not isinstance(name, str) or not name):
                raise BadArgumentError(f"{what} must be a str, not {name!r}")
        self.client = client
        self.entity = entity
        self.project = project
        where = checked(lambda: parse_filter(filters))
        self.filters = dict(deepcopy(filters or {}))
        self.order = "-created_at" if order is None else order
        self.objects: list[Run] = []
        self._position = 0
        query = RunQuery(where=where, order=_parse_order(self.order))
        self._pages = Pages(
            client, [(entity, project)], query, check_per_page(per_page)
        )

    @classmethod
    def _in_any(
        cls, client: Client, projects: Sequence[Project], **given: Any
    ) -> "Runs":
        """Return the runs of the first of these projects that there is."""
        found = cls(client, *projects[0], **given)
        found._pages.projects = list(projects)
        return found

    @property
    def per_page(self) -> int:
        return self._pages.per_page

    @property
    def length(self) -> int:
        """How many runs there are: those that pass the filter, read or not."""
        if self._pages.last is None:
            self._read_page(counts=True)
        return self._pages.count()

    @property
    def more(self) -> bool:
        """Whether there are runs that were not read; True before the first page."""
        return self._pages.more

    @property
    def cursor(self) -> str | None:
        """An opaque name of the place of the last run read; None before the first."""
        return self._pages.cursor

    def convert_objects(self) -> "list[Run]":
        """Return the runs of the page that was read last.

        Raises:
            NotFoundError: None was read, or there is no such project.
        """
        if self._pages.last is None:
            raise NotFoundError(f"Could not find project {self.project}")
        return list(self._pages.last)

    def next(self) -> "Run":
        """Return the next run, as `next(runs)` does; iterators have their own place.

        Raises:
            StopIteration: There is none.
        """
        if not self._has(self._position):
            raise StopIteration
        self._position += 1
        return self.objects[self._position - 1]

    __next__ = next

    def _has(self, place: int) -> bool:
        while len(self.objects) <= place and self._pages.more:
            self._read_page()
        return len(self.objects) > place

    def _read_page(self, counts: bool = False) -> None:
        self.objects += self._pages.read_next(counts)

    def _read_all(self) -> None:
        while self._pages.more:
            self._read_page()

    def __iter__(self) -> "Iterator[Run]":
        place = 0
        while self._has(place):
            yield self.objects[place]
            place += 1

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> "Run": ...
    @overload
    def __getitem__(self, index: slice) -> "list[Run]": ...
    def __getitem__(self, index: int | slice) -> "Run | list[Run]":
        wanted = index.stop if isinstance(index, slice) else index
        start = index.start if isinstance(index, slice) else 0
        if wanted is None or wanted < 0 or (start or 0) < 0:
            self._read_all()
        elif isinstance(index, slice):
            self._has(max(wanted, (start or 0) + 1) - 1)
        else:
            self._has(wanted)
        return self.objects[index]

    @property
    def configs(self) -> Any:
        """The configs of all runs, a row a run: a data frame, or a list of dicts.

        Columns are `run_id`, `run_name`, `run_state` and the keys, nested ones joined
        with dots. Without pandas installed it is a list of dicts.
        """
        return configs_of(self)

    @property
    def summaries(self) -> Any:
        """The summaries of all runs, in the form of `configs`."""
        return summaries_of(self)

    # The signature is W&B's, which users know.
    def histories(  # noqa: PLR0913
        self,
        samples: int = 500,
        keys: list[str] | None = None,
        x_axis: str = "_step",
        format: Format = "default",
        stream: str = "default",
        *,
        method: Method = "even",
        join: Join = "inner",
    ) -> Any:
        """Return the sampled rows of all runs, each with the `run_id` of its run.

        Args:
            samples: How many rows of each run at most.
            keys: As in `Run.history`, like `x_axis`, `stream`, `method` and `join`.
            x_axis: See `keys`.
            format: "default" for a list of dicts; "pandas" or "polars" for a data
                frame; "arrow" for a `pyarrow.Table`.
            stream: See `keys`.
            method: See `keys`.
            join: See `keys`.

        Raises:
            BadArgumentError: An argument but `keys` has a wrong type or value.
            Error: The library that makes this format is not installed.
        """
        chosen = check_format(format)
        wanted = Sample(
            samples=samples,
            keys=keys,
            x_axis=x_axis,
            stream=stream,
            method=method,
            join=join,
        )
        return sweep_histories(((run.id, run._history) for run in self), wanted, chosen)

    def __repr__(self) -> str:
        return f"<Runs {self.entity or '*'}/{self.project or '*'}>"


def _parse_order(order: object) -> tuple[OrderTerm, ...]:
    if not isinstance(order, str):
        raise BadArgumentError(f"order must be a str, not {type(order).__qualname__}")
    by_time = {"asc": "+created_at", "desc": "-created_at"}
    return checked(lambda: parse_order(by_time.get(order, order)))
