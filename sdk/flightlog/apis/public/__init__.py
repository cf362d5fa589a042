"""The read API under the names of W&B's module of the same path."""

from flightlog.apis.public.api import Api
from flightlog.apis.public.artifacts import (
    ArtifactCollection,
    ArtifactCollections,
    Artifacts,
    ArtifactType,
    ArtifactTypes,
    RunArtifacts,
)
from flightlog.apis.public.files import File, Files
from flightlog.apis.public.project import Project, Projects
from flightlog.apis.public.run import Run
from flightlog.apis.public.runs import Runs

__all__ = (
    "Api",
    "ArtifactCollection",
    "ArtifactCollections",
    "ArtifactType",
    "ArtifactTypes",
    "Artifacts",
    "File",
    "Files",
    "Project",
    "Projects",
    "Run",
    "RunArtifacts",
    "Runs",
)
