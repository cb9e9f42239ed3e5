"""What serves, and what has gone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from alerting import BEGIN, HOUR, FakeTraffic

from alerts.serving import has_gone, rows_of, served_lately

SERVED = {"1": {"a": 150, "b": 50}, "2": {"c": 0}}


def test_rows_of_versions_and_servers() -> None:
    served = {"1": {"a": 5, "b": 3}, "2": {"b": 1}}
    counts = [rows_of(served), rows_of(served, "1"), rows_of(served, "", "b"), rows_of(served, "1", "b")]
    assert counts == [9, 8, 4, 3]


@pytest.mark.parametrize(
    ("version", "server", "gone"),
    [("2", "", True), ("3", "", True), ("1", "c", True), ("", "c", True), ("1", "", False), ("1", "a", False)],
)
def test_what_has_no_rows_among_enough_has_gone(version: str, server: str, gone: bool) -> None:
    assert has_gone(SERVED, "errors", version, server) is gone


def test_what_accuses_nobody_in_particular_never_goes() -> None:
    assert not has_gone(SERVED, "drift", "", "")


def test_199_rows_are_too_few_to_say() -> None:
    assert not has_gone({"1": {"a": 199}}, "errors", "2", "")


def test_the_look_back_grows_until_there_are_enough_rows_and_ends_at_two_days() -> None:
    def rows(now: timedelta) -> int:
        return rows_of(served_lately(traffic, "production", "churn", BEGIN + now))

    traffic = FakeTraffic()
    traffic.serve(BEGIN, v1={"a": 60})
    traffic.serve(BEGIN + HOUR)
    assert rows(HOUR) == 600
    assert rows(HOUR + timedelta(minutes=5)) == 300
    assert rows(HOUR + timedelta(minutes=9)) == 11 * 60
    assert rows(timedelta(days=2)) == 3600
    assert rows(timedelta(days=3)) == 0
