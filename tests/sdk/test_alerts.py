"""Which alerts are repeats of others."""

from flightlog._alerts import ALERT_TITLES_MAX, Alerts


def is_raised(alerts: Alerts, title: str) -> bool:
    return alerts.make(title, "", "INFO", 1e9) is not None


def test_no_more_titles_are_remembered_than_there_may_be() -> None:
    alerts = Alerts()
    first, second, *others = (f"of step {n}" for n in range(ALERT_TITLES_MAX + 1))
    for title in (first, second, *others[:-1]):
        assert is_raised(alerts, title)
    assert alerts.make(first, "", "INFO", 0) is not None, "it is the latest now"

    assert is_raised(alerts, others[-1])

    assert not is_raised(alerts, first)
    assert is_raised(alerts, second), "it was the longest ago"
