"""Small batches that come at once: written together, and yet each is what it would be alone."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, ndjson, prediction
from polars.testing import assert_frame_equal
from processes import wait_until

from monitor.ingest import BATCH_TABLES, Receipt
from monitor.service import Service
from monitor.store import Store, StoreError, StoreUnavailableError
from monitor.store.together import Together
from monitor.windows import read_traffic

MODEL = {"models": {"m": {"features": {"x": "numeric", "c": "categorical"}}}}
LABEL = {"type": "label", "model": "m", "prediction_id": "p1", "label": "yes", "timestamp": NOON.timestamp()}
HEALTH = {"type": "health", "server": "pod-1", "ok": True, "latency_ms": 1, "timestamp": NOON.timestamp()}
Insert = Callable[[str, pl.DataFrame], None]


@contextlib.contextmanager
def inserts(service: Service, monkeypatch: pytest.MonkeyPatch, before: Insert | None = None) -> Iterator[Counter[str]]:
    """How many inserts into which table reach the store; what happens before each."""
    measured = service.store._store  # noqa: SLF001 - below what keeps rows
    counted: Counter[str] = Counter()
    insert = measured.insert

    def count(table: str, rows: pl.DataFrame) -> None:
        counted[table] += 1
        if before:
            before(table, rows)
        insert(table, rows)

    with monkeypatch.context() as patch:
        patch.setattr(measured, "insert", count)
        yield counted


def sent_at_once(service: Service, bodies: Sequence[bytes], **more: Any) -> list[Receipt | BaseException]:
    """What became of bodies that all wait when the first is taken in."""

    def send(body: bytes) -> Receipt | BaseException:
        try:
            return service.take(body, "http", **more)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error

    gathering = service.gathering
    with ThreadPoolExecutor(len(bodies)) as threads:
        with gathering._turn:  # noqa: SLF001 - as if another batch were being written
            outcomes = [threads.submit(send, body) for body in bodies]
            wait_until(lambda: len(gathering._waiting) == len(bodies), "all of them waiting")  # noqa: SLF001 - see above
        return [outcome.result() for outcome in outcomes]


def tables(service: Service) -> dict[str, pl.DataFrame]:
    """All that is kept of batches."""
    return {t: service.store.select(f"SELECT * FROM {t} FINAL ORDER BY ALL") for t in BATCH_TABLES}  # noqa: S608 - ours


def bodies(count: int) -> list[bytes]:
    """Some of all kinds of events, and of lines that are none."""
    made = []
    for n in range(count):
        lines = [ndjson([prediction(n, NOON - timedelta(minutes=40 * (n % 4)), model="mn"[n % 2])])]
        lines += [b"no event"] * (n % 3 == 0) + [ndjson([HEALTH])] * (n % 5 == 0) + [ndjson([LABEL])] * (n % 4 == 0)
        made.append(b"\n".join(lines))
    return made


def test_what_comes_at_once_is_written_at_once_and_is_the_same(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    made = bodies(24)
    alone = make_service(**MODEL, store={"path": tmp_path / "alone"})
    expected = [alone.take(body, "http") for body in made]
    kept = tables(alone)
    service = make_service(**MODEL, store={"path": tmp_path / "together"})
    for body in made[:2]:  # of models that are seen for the first time more is asked
        service.take(body, "http")
    with inserts(service, monkeypatch) as counted:
        assert sent_at_once(service, made) == expected
    assert max(counted[table] for table in BATCH_TABLES) == 1
    assert {t: len(rows) for t, rows in kept.items()} == {t: len(rows) for t, rows in tables(service).items()}
    for table, rows in tables(service).items():
        assert_frame_equal(rows, kept[table])


def test_what_is_sent_again_in_other_company_counts_once(make_service: ServiceMaker) -> None:
    service = make_service(**MODEL)
    made = bodies(9)
    for company in (made[:5], made[2:], [made[3]] * 4, made):
        assert all(isinstance(r, Receipt) for r in sent_at_once(service, company))
    assert len(tables(service)["predictions"]) == 9
    span = (NOON - timedelta(hours=3), NOON + timedelta(hours=1))
    traffic = [read_traffic(service.store, model, *span) for model in service.registry.models()]
    assert sorted(t.rows() for t in traffic) == [4, 5]


def test_nobody_is_answered_before_it_is_durable(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(**MODEL)
    answered: list[Receipt] = []
    at_the_end: list[int] = []

    def look(table: str, _: pl.DataFrame) -> None:
        if table == "batches":  # the last
            at_the_end.append(len(answered))

    with inserts(service, monkeypatch, look):
        gathering = service.gathering
        senders = [threading.Thread(target=lambda b=b: answered.append(service.take(b, "http"))) for b in bodies(6)]
        with gathering._turn:  # noqa: SLF001 - as if another batch were being written
            for sender in senders:
                sender.start()
            wait_until(lambda: len(gathering._waiting) == 6, "all of them waiting")  # noqa: SLF001 - see above
        for sender in senders:
            sender.join()
    assert (set(at_the_end), len(answered)) == ({0}, 6)


def test_an_error_of_one_costs_the_others_nothing(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(**MODEL)

    def refuse(table: str, rows: pl.DataFrame) -> None:
        if table == "predictions" and "p3" in rows["prediction_id"].to_list():
            raise StoreError("not this one")

    with inserts(service, monkeypatch, refuse):
        outcomes = sent_at_once(service, [ndjson([prediction(n, NOON)]) for n in range(6)])
    failed = [o for o in outcomes if isinstance(o, StoreError)]
    assert (len(failed), outcomes.index(failed[0])) == (1, 3)
    ids = service.store.select("SELECT prediction_id AS id FROM predictions FINAL ORDER BY id")["id"].to_list()
    assert ids == ["p0", "p1", "p2", "p4", "p5"]


def test_while_the_store_is_away_it_is_asked_once_for_all(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(**MODEL)
    made = bodies(8)
    service.take(ndjson([prediction(99, NOON)]), "http")

    def away(*_: object) -> None:
        raise StoreUnavailableError("no answer within 60 s")

    with inserts(service, monkeypatch, away) as counted:
        outcomes = sent_at_once(service, made)
    assert counted.total() == 1
    assert [str(o) for o in outcomes] == ["no answer within 60 s"] * 8
    assert all(isinstance(r, Receipt) for r in sent_at_once(service, made))
    assert len(tables(service)["predictions"]) == 9


def test_each_may_write_only_to_its_own_models(make_service: ServiceMaker) -> None:
    service = make_service()
    made = [ndjson([prediction(1, NOON, model="m")]), ndjson([prediction(1, NOON, model="secret")])]
    first, second = sent_at_once(service, made, models=frozenset({"m"}))
    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert (first.accepted, [r.reason for r in second.rejects]) == (1, ["forbidden_model"])
    assert [m["model"] for m in service.models()] == ["m"]


def test_a_layout_is_made_of_rows_that_wait_to_be_written(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.reference.FIRST_ROWS", 300)
    service = make_service()
    sent_at_once(service, [ndjson([prediction(n, NOON) for n in range(k, k + 20)]) for k in range(0, 400, 20)])
    model = service.registry.get("production", "m")
    assert model.layout
    traffic = read_traffic(service.store, model, NOON, NOON + timedelta(hours=1))
    assert (traffic.rows(), int(traffic.counts()[model.layout.spans["x"]].sum())) == (400, 400)


def rows(number: int, table: str = "dead_letters") -> pl.DataFrame:
    place = {"source": "t", "batch": "b", "received": NOON}
    if table == "batches":
        return pl.DataFrame({**place, "first": number, "last": number})
    return pl.DataFrame({**place, "row": number, "reason": "r", "detail": "", "raw": b""}).cast({"row": pl.UInt32})


class Noted:
    """Notes what reaches the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: list[tuple[str, int]] = []

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        self.seen.append((table, len(rows)))
        self.store.insert(table, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_kept_rows_are_written_at_the_end_or_before_anything_is_asked(store: Store) -> None:
    noted: Any = Noted(store)
    together = Together(noted, ("dead_letters", "batches"), "batches")
    together.insert("dead_letters", rows(0))
    assert noted.seen == [("dead_letters", 1)]
    with together.at_once():
        for number in (1, 2):
            together.insert("dead_letters", rows(number))
            together.insert("batches", rows(number, "batches"))
        other = threading.Thread(target=together.insert, args=("dead_letters", rows(3)))
        other.start()
        other.join()
        assert noted.seen == [("dead_letters", 1)] * 2, "only this thread's are kept"
        assert together.select("SELECT count() AS n FROM dead_letters FINAL")["n"].to_list() == [4]
        assert noted.seen[2:] == [("dead_letters", 2), ("batches", 2)]
        together.insert("dead_letters", rows(4))
        together.insert("dead_letters", rows(5).drop("detail"))
        together.insert("migrations", pl.DataFrame({"number": [999], "name": "x", "applied": NOON}))
        assert [table for table, _ in noted.seen[4:]] == ["dead_letters", "dead_letters", "migrations"]
        together.insert("batches", rows(6, "batches"))
    assert noted.seen[-1] == ("batches", 1)
    with contextlib.suppress(ZeroDivisionError), together.at_once():
        together.insert("dead_letters", rows(7))
        raise ZeroDivisionError
    together.insert("dead_letters", rows(8))
    assert together.select("SELECT max(row) AS n, count() AS all FROM dead_letters FINAL").rows() == [(8, 7)]


def test_rows_of_each_batch_are_written_in_their_order(store: Store) -> None:
    """A mark behind profiles says that they are there; written before them it would say so too soon."""
    noted: Any = Noted(store)
    noted.store = SimpleNamespace(insert=lambda *_: None)
    together = Together(noted, ("labels", "profile_marks", "profile_batches", "batches"), "batches")
    batches = (
        ("profile_marks", "profile_batches", "profile_marks", "batches"),
        ("labels", "batches"),
        ("profile_marks", "profile_batches", "profile_marks", "labels", "batches"),
    )
    with together.at_once():
        for tables in batches:
            for table in tables:
                together.insert(table, rows(1))
    profiled = [(table, count) for table, count in noted.seen if table != "labels"]
    assert profiled == [("profile_marks", 2), ("profile_batches", 2), ("profile_marks", 2), ("batches", 3)]
    assert sum(count for table, count in noted.seen if table == "labels") == 2
    assert noted.seen[-1] == ("batches", 3)
