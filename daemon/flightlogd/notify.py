"""Word to systemd: ready, stopping, how it goes."""

import socket

__all__ = ("LIFE_TIMEOUT_S", "notify")

LIFE_TIMEOUT_S = 1.0  # For what is said once, to a manager that is busy.


def notify(address: str | None, *states: str, timeout_s: float = 0.0) -> None:
    """Send states such as READY=1 to the socket that NOTIFY_SOCKET named, if any.

    What the manager does not take in time is not said.
    """
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(timeout_s)
            out.sendto("\n".join(states).encode(), address)
    except OSError:
        pass  # The service manager is not there to be told.
