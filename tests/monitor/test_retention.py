"""What is kept and what goes: nothing that is still needed, and nothing that goes is taken for missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from polars.testing import assert_frame_equal

from alerts.ledger import Claim
from monitor.config import ClickHouseSpec, Config
from monitor.folding import GoneError
from monitor.service import Service
from monitor.windows import EPOCH, read_traffic

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
KEPT = {"rows": "6d", "minutes": "3d", "hours": "30d", "findings": "40d"}
SPEC = {"windows": ["1h"], "features": {"x": "numeric", "c": "categorical"}, "retention": KEPT}
MODELS = {"m": SPEC, "kept": {**SPEC, "retention": {"rows": "60d", "hours": "100d"}}}
TABLES = ("predictions", "features", "labels", "profile_batches", "profile_hours", "findings", "dead_letters")


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    return begun(make_service(models=MODELS), clock)


@pytest.fixture
def on_server(tmp_path: Path, clock: StillClock, clickhouse_spec: ClickHouseSpec) -> Iterator[Service]:
    store = {"path": tmp_path / "data", "clickhouse": clickhouse_spec.model_dump()}
    with Service(Config.model_validate({"store": store, "models": MODELS}), clock) as service:
        yield begun(service, clock)


def begun(service: Service, clock: StillClock) -> Service:
    """An hour of two models that has been judged, with a dead letter."""
    table = pl.DataFrame({"x": [float(i % 7) for i in range(400)], "c": ["a", "b"] * 200})
    for name in MODELS:
        service.register_reference(name, table, "train")
    clock.at = NOON + timedelta(minutes=50)
    service.take(ndjson(events()) + b"\nnot json\n", "http", key="first")
    service.judge_due(NOON + 2 * HOUR)
    return service


def events(number: int = 0) -> list[dict[str, Any]]:
    rows = []
    for n in range(100):
        name = f"{number}-{n}"
        at = NOON + timedelta(seconds=20 * n)
        for model in MODELS:
            label = {
                "type": "label",
                "model": model,
                "prediction_id": name,
                "label": "yes",
                "timestamp": at.timestamp(),
            }
            rows += [prediction(n, at, model=model, prediction_id=name), label]
    return rows


def counts(service: Service, model: str = "m") -> dict[str, int]:
    """Rows by table; of no model where a table knows none."""
    found = {}
    for table in TABLES:
        where = "1" if table == "dead_letters" else f"model = '{model}'"
        found[table] = service.store.select(f"SELECT count() AS n FROM {table} FINAL WHERE {where}")["n"][0]  # noqa: S608 - ours
    return found


def run(service: Service, clock: StillClock, after: timedelta) -> None:
    """What happens every hour, often enough to be done, so long after the first hour."""
    service._judged_until = lambda model: clock.at  # type: ignore[method-assign]  # noqa: ARG005, SLF001 - judging takes long
    for more in (0, 1, 2):
        clock.at = NOON + after + more * HOUR
        service.remove_old(clock.at)


def rows_read(service: Service, model: str = "m") -> int:
    return read_traffic(service.store, service.registry.get("production", model), NOON, NOON + HOUR).rows()


def audited(service: Service, clock: StillClock, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.audit(NOON - HOUR, clock.at, **{"repair": False, **options})["disagreements"]
    return found


@pytest.mark.parametrize("kind", ["service", "on_server"])
def test_each_kind_of_thing_goes_in_its_time(kind: str, request: pytest.FixtureRequest, clock: StillClock) -> None:
    service: Service = request.getfixturevalue(kind)
    first = counts(service)
    run(service, clock, 2 * DAY)
    assert counts(service) == {**first, "findings": counts(service)["findings"]}
    run(service, clock, 4 * DAY)
    assert counts(service)["profile_batches"] == 0
    assert counts(service)["predictions"] == 100
    assert rows_read(service) == 100
    assert audited(service, clock) == []
    run(service, clock, 8 * DAY)
    assert [counts(service)[table] for table in ("predictions", "features", "labels")] == [0, 0, 0]
    assert [counts(service, "kept")[table] for table in ("predictions", "features", "labels")] == [100, 100, 100]
    assert rows_read(service) == 100
    assert audited(service, clock) == []
    run(service, clock, 32 * DAY)
    with pytest.raises(GoneError, match=r"profiles of before .* were removed"):
        rows_read(service)
    assert rows_read(service, "kept") == 100
    assert audited(service, clock) == []
    assert counts(service)["findings"] > 0
    run(service, clock, 95 * DAY)
    assert counts(service)["dead_letters"] == 0
    assert audited(service, clock) == []


def test_requests_by_the_minute_stay_to_be_seen(service: Service, clock: StillClock) -> None:
    columns = "server, sum(n) AS n, min(minute) AS first, max(minute) AS last"
    shown = f"SELECT {columns} FROM profiles WHERE model = 'm' GROUP BY server ORDER BY server"  # noqa: S608 - our own words
    before = service.store.select(shown)
    for days in (0, 4):
        run(service, clock, days * DAY)
        clock.at += HOUR
        assert_frame_equal(service.store.select(shown), before)
    assert counts(service)["profile_batches"] == 0


def test_an_hour_that_is_not_judged_yet_keeps_its_batches(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make_service(models=MODELS)
    begun(service, clock)
    clock.at = NOON + HOUR + timedelta(minutes=50)
    late = [{**e, "timestamp": e["timestamp"] + 3600.0} for e in events(1)]
    service.take(ndjson(late), "http")
    for hours in (0, 1, 2):  # nobody judges
        clock.at = NOON + 4 * DAY + hours * HOUR
        service.remove_old(clock.at)
    left = service.store.select("SELECT DISTINCT toHour(minute) AS hour FROM profile_batches WHERE model = 'm'")
    assert left["hour"].to_list() == [13]


def test_a_file_that_is_imported_again_after_all_this_changes_no_count(service: Service, clock: StillClock) -> None:
    run(service, clock, 4 * DAY)
    before = rows_read(service)
    body = ndjson(events()) + b"\nnot json\n"
    service.take(body, "http", key="first")
    assert rows_read(service) == before
    run(service, clock, 5 * DAY)
    assert rows_read(service) == before
    assert counts(service)["profile_batches"] == 0
    assert audited(service, clock) == []


def test_events_that_come_days_late_are_counted(service: Service, clock: StillClock) -> None:
    run(service, clock, 4 * DAY)
    service.take(ndjson(events(1)), "http")
    assert rows_read(service) == 200
    run(service, clock, 5 * DAY)
    assert rows_read(service) == 200
    assert counts(service)["profile_batches"] > 0, "kept for three days again"
    run(service, clock, 9 * DAY)
    assert counts(service)["profile_batches"] == 0
    assert rows_read(service) == 200
    assert audited(service, clock) == []


def test_history_is_rolled_up_without_being_judged(make_service: ServiceMaker, clock: StillClock) -> None:
    service = make_service(models=MODELS)
    begun(service, clock)
    clock.at = NOON + 20 * DAY
    service.take(ndjson([{**e, "timestamp": e["timestamp"] + 5 * 86400.0} for e in events(2)]), "file")
    run(service, clock, 20 * DAY)
    assert counts(service)["profile_batches"] > 0
    run(service, clock, 24 * DAY)
    assert counts(service)["profile_batches"] == 0
    model = service.registry.get("production", "m")
    assert read_traffic(service.store, model, NOON + 5 * DAY, NOON + 5 * DAY + HOUR).rows() == 100


def test_a_model_without_cells_keeps_its_batches(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON + HOUR / 2
    service = make_service(models={"m": SPEC})
    service.take(ndjson([e for e in events() if e["model"] == "m"]), "http")
    run(service, clock, 5 * DAY)
    assert counts(service)["profile_batches"] > 0


def test_minutes_that_are_gone_are_said_to_be_gone(service: Service, clock: StillClock) -> None:
    run(service, clock, 4 * DAY)
    with pytest.raises(
        GoneError, match=r"of 2026-03-01T12:00Z only the whole hour is kept; name times that are on the"
    ):
        service.evaluate("m", NOON + timedelta(minutes=50))
    assert service.evaluate("m", NOON + HOUR)["findings"]


def test_a_reference_window_that_is_gone_is_told_in_place_of_drift(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    window = {"start": NOON.isoformat(), "end": (NOON + HOUR).isoformat()}
    spec = {**SPEC, "minimum_rows": 50}
    service = begun(make_service(models={**MODELS, "m": spec}), clock)
    run(service, clock, 31 * DAY)
    service = make_service(models={**MODELS, "m": {**spec, "reference": {"window": window}}})
    clock.at = NOON + 33 * DAY
    later = [{**e, "timestamp": (clock.at - HOUR / 2).timestamp()} for e in events(3)]
    service.take(ndjson(later), "http")
    found = service.evaluate("m", clock.at)["findings"]
    assert any("the reference window cannot be read any more" in f["message"] for f in found)


def test_repairing_brings_nothing_back_for_long(service: Service, clock: StillClock) -> None:
    run(service, clock, 8 * DAY)
    assert audited(service, clock, repair=True) == []
    service.take(ndjson(events()) + b"\nnot json\n", "http", key="first")
    assert counts(service)["predictions"] == 100
    assert audited(service, clock) == []
    run(service, clock, 8 * DAY + 4 * HOUR)
    assert counts(service)["predictions"] == 0


def test_a_sum_that_is_wrong_and_has_no_batches_is_not_said_to_be_repaired(service: Service, clock: StillClock) -> None:
    run(service, clock, 4 * DAY)
    service.store.execute("DELETE FROM profile_hours WHERE server = 'pod-1' AND model = 'm'")
    (found,) = audited(service, clock, repair=True)
    assert found["repair"] == "not repaired: its batches are not kept any more, only their sum"


def test_disk_space_is_given_back(service: Service, clock: StillClock) -> None:
    written = (
        "SELECT sum(rows) AS n FROM system.parts WHERE active AND database = currentDatabase() AND table = 'features'"
    )
    assert service.store.select(written)["n"][0] == 200
    run(service, clock, 62 * DAY)
    deadline = 100
    while service.store.select(written)["n"].sum() and (deadline := deadline - 1):
        pass
    assert service.store.select(written)["n"].sum() == 0


def test_only_one_process_removes(service: Service, clock: StillClock) -> None:
    clock.at = NOON + 40 * DAY
    assert service.ledger.claim(Claim("", "", "retention", EPOCH, EPOCH, "another"), clock.at, HOUR)
    assert service.remove_old(clock.at) == {}
    assert service.remove_old(clock.at + HOUR)
