"""Projects: what groups runs."""

from collections.abc import Iterator
from functools import partial

from flightlog._places import project_url
from flightlog.apis.public.artifacts import (
    ArtifactCollections,
    ArtifactTypes,
    list_collections,
    list_types,
)
from flightlog.apis.public.client import Client
from flightlog.apis.public.pages import display_html, frame_html, table_html
from flightlog.apis.public.reading import reading
from flightlog.errors import NotFoundError
from flightlog_storage.database import RunRow

__all__ = ("Project", "Projects")

PER_PAGE = 50  # Of the types of artifacts.


class Project:
    """A project of a home; nothing is read before it is asked for."""

    def __init__(self, client: Client, entity: str, project: str) -> None:
        self.client = client
        self._key = (entity, project)

    @property
    def entity(self) -> str:
        return self._key[0]

    @property
    def name(self) -> str:
        return self._key[1]

    @property
    def id(self) -> str:
        """The number of its first run, as text.

        Raises:
            NotFoundError: There is no such project.
        """
        return str(self._first().number)

    @property
    def created_at(self) -> float:
        """When its first run started, in seconds since 1970.

        Raises:
            NotFoundError: There is no such project.
        """
        return self._first().created_at

    @property
    def path(self) -> list[str]:
        return list(self._key)

    @property
    def url(self) -> str:
        return project_url(*self._key)

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """Return an iframe of the project's `url`, or with `hidden` a button for it."""
        return frame_html(self.url, height, hidden, f"project {self.name}")

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the project in a notebook; return False where there is none."""
        return display_html(self._repr_html_())

    def artifacts_types(self) -> ArtifactTypes:
        """Return the types of artifacts that its runs logged."""
        return list_types(self.client, self._key, PER_PAGE)

    def collections(self, per_page: int = 50) -> ArtifactCollections:
        """Return the artifacts that its runs logged, of all types, by name.

        Raises:
            BadArgumentError: `per_page` is no positive int.
        """
        return list_collections(self.client, self._key, per_page)

    def sweeps(self) -> list[object]:
        """Return no sweeps: there are none."""
        return []

    def _first(self) -> RunRow:
        rows = reading(partial(self.client.reader.runs, *self._key))
        if not rows:
            raise NotFoundError(f"Could not find project {self.name}")
        return rows[0]

    def _repr_html_(self) -> str:
        rows = reading(partial(self.client.reader.runs, *self._key))
        states = {f"{row.id} {row.name or ''}": str(row.state) for row in rows}
        return table_html("/".join(self._key), {"runs": states})

    def __repr__(self) -> str:
        return f"<Project {self.entity}/{self.name}>"


class Projects:
    """The projects of an entity, by the start of their first run; no length, as in W&B.

    Read at the first iteration.
    """

    def __init__(self, client: Client, entity: str) -> None:
        self.client = client
        self.entity = entity
        self._found: list[Project] | None = None

    def __iter__(self) -> Iterator[Project]:
        return iter(self._projects())

    def __getitem__(self, index: int) -> Project:
        return self._projects()[index]

    def _projects(self) -> list[Project]:
        if self._found is None:
            rows = reading(partial(self.client.reader.runs, self.entity))
            names = dict.fromkeys(row.project for row in rows)
            self._found = [Project(self.client, self.entity, name) for name in names]
        return self._found

    def __repr__(self) -> str:
        return f"<Projects {self.entity}>"
