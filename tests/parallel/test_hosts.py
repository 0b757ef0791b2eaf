"""The order of the hosts, with the barrier between them made visible."""

import pytest

from jaxvpr.parallel import hosts


@pytest.fixture
def events(monkeypatch):
    seen = []
    monkeypatch.setattr(hosts, "barrier", lambda name: seen.append(f"barrier {name}"))
    return seen


@pytest.mark.parametrize("first", [True, False])
def test_the_first_makes_it_before_the_others_look(events, monkeypatch, first):
    monkeypatch.setattr(hosts, "is_first", lambda: first)
    assert hosts.first_then_others("city", lambda: events.append("made") or 7) == 7
    assert events == (["made", "barrier city"] if first else ["barrier city", "made"])


@pytest.mark.parametrize("first", [True, False])
def test_an_error_on_the_first_leaves_nobody_waiting(events, monkeypatch, first):
    monkeypatch.setattr(hosts, "is_first", lambda: first)

    def fails():
        raise OSError("no such folder")

    with pytest.raises(OSError, match="no such folder"):
        hosts.first_then_others("city", fails)
    assert events == ["barrier city"]
