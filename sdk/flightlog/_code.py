"""The code of a run: its workspace, found when it starts, packed in the background."""

import os
import time
import uuid
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from flightlog._assets import Assets
from flightlog._settings import find_workspace, open_home
from flightlog._snapshot import make_request, tell_of_skipped
from flightlog._storing import keep_file
from flightlog_storage.blobs import BlobStore
from flightlog_storage.copies import Staged, hash_file
from flightlog_storage.event import FileSaved
from flightlog_storage.names import CODE_FILE
from flightlog_storage.snapshot import write_snapshot
from flightlog_storage.workspace import Request, Workspace, survey

__all__ = ("find_code", "store_code")


def find_code(arguments: Mapping[str, Any]) -> tuple[Request, Workspace]:
    """Return what belongs to the workspace that `init()` was asked for.

    Only names and sizes are read.

    Raises:
        ValueError: It is more than the limits allow.
        OSError: It is not there, or no folder.
    """
    request = make_request(
        find_workspace(arguments["workspace_root"]),
        never=(os.path.realpath(open_home(arguments["home"]).root),),
        is_forced=arguments["force_snapshot"],
    )
    return request, survey(request)


def store_code(code: tuple[Request, Workspace], assets: Assets) -> None:
    """Have the background pack the code and make it a file of the run."""
    assets.store("the code snapshot", partial(_pack, *code))


def _pack(
    request: Request, found: Workspace, store: BlobStore, staging: Path
) -> FileSaved:
    path = staging / uuid.uuid4().hex
    stored = write_snapshot(request, found, path)
    tell_of_skipped(request.root, stored)
    return keep_file(store, Staged(path, hash_file(path)), CODE_FILE, time.time())
