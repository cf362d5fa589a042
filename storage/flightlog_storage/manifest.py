"""Manifests: which files make up an artifact, as bytes and as a digest."""

import hashlib
from collections.abc import Iterable

import msgspec

from flightlog_storage.blobs import BlobStore
from flightlog_storage.event import ManifestEntry

__all__ = (
    "MANIFEST_INLINE_SIZE_MAX",
    "decode_manifest",
    "encode_manifest",
    "manifest_digest",
    "read_manifest",
)

MANIFEST_INLINE_SIZE_MAX = 64 << 10  # A larger one becomes a blob.


def encode_manifest(entries: list[ManifestEntry]) -> bytes:
    """Return a manifest as it lies in a blob or in a table."""
    return msgspec.msgpack.encode(entries)


def decode_manifest(data: bytes) -> list[ManifestEntry]:
    """Return a manifest from its bytes.

    Raises:
        msgspec.MsgspecError: These are none.
    """
    return msgspec.msgpack.decode(data, type=list[ManifestEntry])


def read_manifest(store: BlobStore, manifest: str) -> list[ManifestEntry]:
    """Return the entries of a manifest that is a blob.

    Raises:
        CorruptData: It is missing or damaged.
        OSError: It cannot be read.
        msgspec.MsgspecError: It is no manifest.
    """
    with store.open_verified(manifest) as file:
        return decode_manifest(file.read())


def manifest_digest(entries: Iterable[ManifestEntry]) -> str:
    """Return what tells two artifacts' contents apart; as W&B does, to the letter."""
    digest = hashlib.md5(b"wandb-artifact-manifest-v1\n", usedforsecurity=False)
    for entry in sorted(entries, key=lambda entry: entry.path):
        digest.update(f"{entry.path}:{entry.digest}\n".encode())
    return digest.hexdigest()
