"""`define_metric`: checking a definition, and which rows get a step metric's value."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from flightlog.errors import Error
from flightlog_storage.event import MetricDefined

__all__ = ("AGGREGATES", "StepSync", "check_definition", "leaves")

AGGREGATES = ("min", "max", "mean", "first", "last", "best", "copy", "none")


def check_definition(
    name: object,
    step_metric: object,
    summary: str | None,
    goal: str | None,
    **rest: Any,
) -> MetricDefined:
    """Return the event that defines a metric.

    Raises:
        TypeError: A name is no str.
        Error: A glob, an aggregate or a goal that does not exist.
    """
    if isinstance(step_metric, MetricDefined):
        step_metric = step_metric.name
    if not isinstance(name, str) or not isinstance(step_metric, str | None):
        raise TypeError("define_metric: name and step_metric must be str")
    if not name:
        raise Error("define_metric: the name is empty")
    if "*" in name[:-1] or (step_metric and "*" in step_metric):
        raise Error(f"define_metric: {name!r}: a * is allowed at the end of name only")
    if not isinstance(summary, str | None):
        raise TypeError("define_metric: summary must be a str such as 'min,max'")
    wanted = [word.strip() for word in summary.split(",")] if summary else []
    unknown = [word for word in wanted if word not in AGGREGATES]
    if unknown:
        raise Error(f"define_metric: summary {unknown[0]!r} is none of {AGGREGATES}")
    if goal not in (None, "minimize", "maximize"):
        raise Error(
            f"define_metric: goal {goal!r} is neither 'minimize' nor 'maximize'"
        )
    return MetricDefined(
        name=name, step_metric=step_metric, summary=wanted, goal=goal, **rest
    )


class StepSync:
    """Which step metrics belong into a row that was logged without them."""

    def __init__(self) -> None:
        self._definitions: list[MetricDefined] = []

    def __bool__(self) -> bool:
        return bool(self._definitions)

    def define(self, definition: MetricDefined) -> None:
        self._definitions = [
            each for each in self._definitions if each.name != definition.name
        ]
        if definition.step_metric and definition.step_sync:
            self._definitions.append(definition)

    def is_new_step_metric(self, keys: Container[str], known: Container[str]) -> bool:
        """Whether one of the keys is a step metric that was not known so far."""
        step_metrics = (each.step_metric for each in self._definitions)
        return any(name in keys and name not in known for name in step_metrics if name)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the step metrics that these keys need and do not have."""
        present = set(keys)
        return list(
            dict.fromkeys(
                definition.step_metric
                for definition in self._definitions
                if definition.step_metric
                and definition.step_metric not in present
                and any(_matches(definition.name, key) for key in present)
            )
        )


def leaves(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the keys of nested dicts joined by dots.

    A dict that has a `_type` is a value.
    """
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping) and "_type" not in value:
            inner = leaves({f"{key}.{name}": item for name, item in value.items()})
            found |= inner
        else:
            found[key] = value
    return found


def _matches(pattern: str, key: str) -> bool:
    if pattern.endswith("*"):
        return key.startswith(pattern[:-1]) and not key.startswith("_")
    return key == pattern
