from typing import Any

import pytest

from flightlog_storage import filters as module
from flightlog_storage.filters import And, parse_filter
from flightlog_storage.run_query import parse_order


def nested(depth: int) -> dict[str, Any]:
    document: dict[str, Any] = {"name": "x"}
    for _ in range(depth):
        document = {"$not": document}
    return document


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


WRONG = {
    "a filter must be a dict, not str": "name",
    "a filter must be a dict, not list": [{"name": "x"}],
    "the keys of a filter must be str; 1 is not": {1: 2},
    "unknown operator '$where' in place of a field; there are $and, $nor, $or, $not": {
        "$where": 1
    },
    "unknown field 'colour'; there are name, display_name,": {"colour": "red"},
    "unknown field 'config'": {"config": {"a": 1}},
    "$and takes a list of filters, not dict": {"$and": {"name": "x"}},
    "$or takes one filter at least": {"$or": []},
    "$nor takes one filter at least": {"$nor": []},
    "a filter must be a dict, not None": {"$not": None},
    "config.a: unknown operator '$all'; there are $eq, $ne, $gt,": {
        "config.a": {"$all": [1]}
    },
    "config.a: unknown operator 'b'": {"config.a": {"$gt": 1, "b": 2}},
    "config.a: $in takes a list, not str": {"config.a": {"$in": "abc"}},
    "config.a: $nin takes a list, not int": {"config.a": {"$nin": 1}},
    "config.a: $gt takes a number, a str or a bool, not None": {
        "config.a": {"$gt": None}
    },
    "config.a: $lte takes a number, a str or a bool, not list": {
        "config.a": {"$lte": [1]}
    },
    "config.a: $exists takes a bool, not 1": {"config.a": {"$exists": 1}},
    "config.a: $regex takes a str, not int": {"config.a": {"$regex": 1}},
    "config.a: $regex '(' is no regular expression: missing )": {
        "config.a": {"$regex": "("}
    },
    "config.a: $regex '(a{400}){400}' repeats too often: all its {n} multiplied may": {
        "config.a": {"$regex": "(a{400}){400}"}
    },
    "config.a: a pattern has 1,000 characters at most, not 1,001": {
        "config.a": {"$regex": "x" * 1001}
    },
    "config.a: $options takes some of the letters 'imsx', not 'u'": {
        "config.a": {"$regex": "x", "$options": "u"}
    },
    "config.a: $options goes with $regex only": {
        "config.a": {"$eq": "x", "$options": "i"}
    },
    "config.a: $contains takes a str, not list": {"config.a": {"$contains": ["x"]}},
    "config.a: $not takes a dict of operators, not int; for a value there is $ne": {
        "config.a": {"$not": 1}
    },
    "config.a: $eq takes a number, a str, a bool, None, a datetime, a list": {
        "config.a": object()
    },
    "config.a: $eq: the key 1 is no str": {"config.a": {"b": {1: 2}}},
    "created_at: 'yesterday' is no time; ISO 8601 text,": {
        "created_at": {"$gt": "yesterday"}
    },
    "created_at: True is no time": {"created_at": True},
    "created_at: $regex is for texts; this is a time": {"created_at": {"$regex": "2"}},
    "duration: $contains is for texts; this is a number": {
        "duration": {"$contains": "2"}
    },
    "keys_info.keys.loss: only $exists can be asked of it": {"keys_info.keys.loss": 1},
    "keys_info.keys.loss: only $exists": {"keys_info.keys.loss": {"$gt": 1}},
    "keys_info.keys.loss: only $exists can": {"keys_info.keys.loss": {"$regex": "1"}},
    "a filter may be nested 50 levels deep": nested(51),
    "a value of the filter is nested too deeply": {"config.a": endless()},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_said(message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # The text is compared.
        parse_filter(WRONG[message])

    assert str(raised.value).startswith(message)


def test_filters_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILTER_CONDITIONS_MAX", 2)
    monkeypatch.setattr(module, "FILTER_VALUES_MAX", 3)

    with pytest.raises(ValueError, match="2 conditions at most, not 3; \\$in takes"):
        parse_filter({"$or": [{"name": "x"}, {"$not": {"name": "y", "state": "z"}}]})
    with pytest.raises(ValueError, match="3 values at most, not 4"):
        parse_filter({"name": {"$in": ["a", "b", "c"]}, "state": "x"})


def test_none_is_every_run() -> None:
    assert parse_filter(None) == parse_filter({}) == And(())
    assert parse_filter(nested(50))


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("", "unknown field ''"),
        ("+colour", "unknown field 'colour'"),
        ("name,-", "unknown field ''"),
        ("keys_info.keys.loss", "runs cannot be sorted by keys_info.keys.loss"),
        (",".join(["name"] * 17), "16 fields at most, not 17"),
    ],
)
def test_wrong_orders_are_told(order: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_order(order)
