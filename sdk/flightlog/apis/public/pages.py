"""What a notebook shows of a run or a project."""

import sys
from collections.abc import Mapping
from html import escape
from typing import Any, TypeGuard

from flightlog.errors import BadArgumentError

__all__ = ("display_html", "frame_html", "table_html")

SHOWN_MAX = 20  # Keys of a config or a summary.


def frame_html(url: str, height: object, hidden: object, what: str) -> str:
    """Return an iframe that shows `url`, or a button that reveals it. As in W&B.

    Raises:
        BadArgumentError: `height` is no positive int.
    """
    if not _is_height(height):
        raise BadArgumentError(f"height must be a positive int, not {height!r}")
    style = f"border:none;width:100%;height:{height}px;"
    prefix = ""
    if hidden:
        style += "display:none;"
        prefix = (
            "<button onClick=\"this.nextSibling.style.display='block';"
            f"this.style.display='none';\">Display {escape(what)}</button>"
        )
    source = escape(f"{url}?jupyter=true", quote=True)
    return f'{prefix}<iframe src="{source}" style="{style}"></iframe>'


def _is_height(height: object) -> TypeGuard[int]:
    return isinstance(height, int) and not isinstance(height, bool) and height > 0


def table_html(title: str, sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return tables of names and values, with all text escaped."""
    found = [f"<b>{escape(title)}</b>"]
    for name, values in sections.items():
        rows = list(values.items())
        cells = "".join(
            f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>"
            for key, value in rows[:SHOWN_MAX]
        )
        if len(rows) > SHOWN_MAX:
            left = len(rows) - SHOWN_MAX
            cells += f'<tr><td colspan="2">… and {left} more</td></tr>'
        if rows:
            found.append(f"<table><caption>{escape(name)}</caption>{cells}</table>")
    return "".join(found)


def display_html(html: str) -> bool:
    """Show it in a notebook; return False where there is none."""
    ipython: Any = sys.modules.get("IPython")  # It is loaded where a notebook is.
    if ipython is None or ipython.get_ipython() is None:
        return False
    ipython.display.display(ipython.display.HTML(html))
    return True
