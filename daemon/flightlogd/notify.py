"""Word to systemd: ready, stopping, how it goes."""

import socket

__all__ = ("notify",)


def notify(address: str | None, *states: str) -> None:
    """Send states such as READY=1 to the socket that NOTIFY_SOCKET named, if any."""
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto("\n".join(states).encode(), address)
    except OSError:
        pass  # The service manager is not there to be told.
