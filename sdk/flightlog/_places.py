"""Where a run is found: its url, and its folder for files in the home."""

from pathlib import Path

from flightlog_storage.home import Home

__all__ = ("make_run_folder", "project_url", "run_url")


def run_url(entity: str, project: str, run: str) -> str:
    """Return a run's address; it ends as W&B's does."""
    from urllib.parse import quote  # Late: `import flightlog` has to be light.

    return f"{_root(entity, project)}/runs/{quote(run)}"


def project_url(entity: str, project: str) -> str:
    """Return a project's address."""
    return f"{_root(entity, project)}/workspace"


def _root(entity: str, project: str) -> str:
    from urllib.parse import quote  # Late, as above.

    return f"flightlog://local/{quote(entity)}/{quote(project)}"


def make_run_folder(home: Home, entity: str, project: str, run: str) -> Path:
    """Return a folder in the home for files of a run; made if it is not there."""
    folder = home.root
    for part in Path("files", entity, project, run).parts:
        folder /= part
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder
