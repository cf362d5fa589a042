"""What a check of a home found: problems, notes that are no damage, and what to do."""

from dataclasses import dataclass, field

from flightlog_storage.terminal import plain

__all__ = ("REPLAY", "Advice", "Findings", "Problem", "cost_of", "listed")

REPLAY = "flightlog replay makes it anew from the log"
ITEMS_MAX = 20  # In one note.


@dataclass(frozen=True, slots=True)
class Problem:
    """Something damaged, and its cost: `run` and the counts are None if not known."""

    where: str
    what: str
    run: str | None = None
    events: int | None = None
    points: int | None = None
    cure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What is to be done in a home: why it matters, and what mends it.

    A note is worth a look, and nothing need be done.
    """

    where: str
    what: str
    why: str
    cure: str
    is_note: bool = False


@dataclass(slots=True)
class Findings:
    """What was checked and found. Notes are worth a look and no damage.

    `lost` has how many events of which runs were lost for good, in a known way.
    """

    counts: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)


def cost_of(problem: Problem) -> str:
    """Return what a problem cost, as people read it."""
    if problem.points is not None:
        return f"{problem.points:,} points, until it is made anew"
    if problem.events is None:
        return "not known"
    return f"{problem.events:,} events"


def listed(what: str, items: list[str]) -> str:
    """Return a line that names some of the items, and how many more there are."""
    shown = [plain(item) for item in items[:ITEMS_MAX]]
    left = len(items) - len(shown)
    more = [f"… and {left:,} more"] if left else []
    return f"{what}: " + "; ".join([*shown, *more])
