"""Files that grow, and older copies of them: each line counts once, in rows and in profiles."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from monitor.config import ClickHouseSpec, Config
from monitor.fleet import served
from monitor.folding import fold, remove_sealed, seal
from monitor.service import Service, import_file

HOUR = timedelta(hours=1)
FEATURES = {"x": "numeric", "c": "categorical"}
REFERENCE = pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200})
LINES = [ndjson([prediction(n, NOON - HOUR + timedelta(minutes=n))]) + b"\n" for n in range(24)]
WRITTEN = b"".join(LINES)
CHUNK_BYTES = 8 * len(LINES[0])
TABLES = (
    "imports",
    "batches",
    "batch_hours",
    "predictions",
    "features",
    "dead_letters",
    "profile_batches",
    "profile_marks",
    "profile_hours",
    "profile_folds",
    "profile_seals",
    "sealed_batches",
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("import"), st.integers(1, len(WRITTEN))),
        st.tuples(st.just("import"), st.integers(1, len(LINES)).map(lambda n: sum(map(len, LINES[:n])) - n % 2)),
        st.tuples(st.just("seal"), st.just(0)),
    ),
    min_size=3,
    max_size=6,
)


@pytest.fixture
def service(make_service: ServiceMaker, clock: StillClock) -> Service:
    clock.at = NOON
    service = make_service(models={"m": {"features": FEATURES}})
    service.register_reference("m", REFERENCE, "train")
    return service


class World:
    """A file of which longer and shorter copies are imported."""

    def __init__(self, service: Service, path: Path) -> None:
        self.service = service
        self.path = path
        self.read = 0
        self.now = NOON
        for table in TABLES:
            service.store.execute(f"TRUNCATE TABLE {table}")

    def do(self, step: str, size: int) -> None:
        """Import a copy of so many bytes, or let sums stand for all that came until now."""
        if step == "import":
            self.path.write_bytes(WRITTEN[:size])
            answers = [answer for _, answer in import_file(self.service, self.path, CHUNK_BYTES)]
            lines = [line for line in WRITTEN[:size].split(b"\n") if line]
            whole = sum(1 for line in lines if line.endswith(b"}}") or line + b"\n" in LINES)
            assert sum(answer["accepted"] for answer in answers) == whole
            assert sum(len(answer["rejected"]) for answer in answers) == len(lines) - whole
            self.read = max(self.read, whole)
        else:
            self.seal()

    def seal(self) -> None:
        """As hourly, days later."""
        store, hours = self.service.store, [NOON - HOUR]
        self.now += HOUR
        fold(store, "production", "m", NOON - HOUR, NOON, self.now)
        seal(store, "production", "m", hours, self.now, self.now)
        remove_sealed(store, hours, self.now)
        assert store.select("SELECT count() AS n FROM profile_batches FINAL")["n"].to_list() == [0]

    def counted(self) -> tuple[int, int]:
        return counted(self.service)

    def letters(self) -> int:
        """Dead letters that count."""
        return sum(group["lines"] for group in self.service.dead_letter_groups())


def counted(service: Service) -> tuple[int, int]:
    """Rows, and events in what judging reads."""
    rows = service.store.select("SELECT count() AS n FROM predictions FINAL")["n"][0]
    return int(rows), int(served(service.store, "production", "m", NOON - HOUR, NOON)["rows"].sum())


HALF = len(WRITTEN) // 2 + 30


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(todo=steps)
@example(todo=[("import", HALF), ("seal", 0), ("import", len(WRITTEN)), ("seal", 0), ("import", len(WRITTEN))])
@example(todo=[("import", len(WRITTEN)), ("seal", 0), ("import", HALF), ("import", len(WRITTEN))])
def test_any_copies_of_a_file_in_any_order_count_each_line_once(
    service: Service, tmp_path: Path, todo: Sequence[tuple[str, int]]
) -> None:
    world = World(service, tmp_path / "log.ndjson")
    for step, size in todo:
        world.do(step, size)
        assert world.counted() == (world.read, world.read)
    found = service.auditor.audit(NOON - HOUR, NOON + HOUR, NOON + HOUR, repair=False)
    assert found == []


def test_a_line_that_was_half_written_is_no_dead_letter_once_it_is_whole(service: Service, tmp_path: Path) -> None:
    world = World(service, tmp_path / "log.ndjson")
    at = len(LINES[0]) + len(LINES[1])
    world.do("import", at + 20)
    assert (world.counted(), world.letters()) == ((2, 2), 1)
    for size in (at + len(LINES[2]) + 20, at + len(LINES[2])):
        world.do("import", size)
        assert world.counted() == (3, 3)
    assert world.letters() == 1, "of the half after the third line"


def test_an_older_copy_of_what_was_begun_and_never_finished_is_taken_in(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(service, tmp_path / "log.ndjson")
    insert = service.store.insert
    monkeypatch.setattr(service.store, "insert", lambda t, r: None if t == "batches" else insert(t, r))
    world.do("import", len(WRITTEN))
    monkeypatch.setattr(service.store, "insert", insert)
    shorter = sum(map(len, LINES[:5]))
    world.do("import", shorter)
    world.do("import", len(WRITTEN))
    assert world.counted() == (24, 24)
    assert service.auditor.audit(NOON - HOUR, NOON + HOUR, NOON + HOUR, repair=False) == []


def test_an_array_that_has_grown_counts_once(service: Service) -> None:
    for size in (3, 5, 4):
        body = b"[" + b",".join(line.strip() for line in LINES[:size]) + b"]"
        assert service.take(body, "file", key="array").accepted == size
    assert service.store.select("SELECT count() AS n FROM predictions FINAL")["n"].to_list() == [5]


def test_two_imports_of_a_file_at_the_same_moment_count_each_line_once(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(tmp_path, monkeypatch, service, service)
    assert counted(service) == (24, 24)


def test_so_do_two_processes(
    tmp_path: Path, clock: StillClock, clickhouse_spec: ClickHouseSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.at = NOON
    store = {"path": tmp_path / "data", "clickhouse": clickhouse_spec.model_dump()}
    config = Config.model_validate({"store": store, "models": {"m": {"features": FEATURES}}})
    with Service(config, clock) as one, Service(config, clock) as other:
        one.register_reference("m", REFERENCE, "train")
        other.refresh_models(NOON)
        at_once(tmp_path, monkeypatch, one, other)
        assert counted(one) == (24, 24)


def at_once(folder: Path, monkeypatch: pytest.MonkeyPatch, *services: Service) -> None:
    """Import two copies of a file, of which both first look at what is there; then the longer one is written first."""
    both = threading.Barrier(2)
    longer = threading.Event()

    def import_copy(service: Service, size: int) -> None:
        path = folder / f"{size}.ndjson"
        path.write_bytes(b"".join(LINES[:size]))
        list(import_file(service, path, len(WRITTEN)))

    for service in set(services):
        query, insert = service.store.query, service.store.insert

        def looked(name: str, query: Any = query, **parameters: Any) -> pl.DataFrame:
            rows: pl.DataFrame = query(name, **parameters)
            if name == "imports_of_key":
                with contextlib.suppress(threading.BrokenBarrierError):
                    both.wait(2.0)
            return rows

        def written(table: str, rows: pl.DataFrame, insert: Any = insert) -> None:
            if table == "imports" and rows["lines"][0] == 9:
                longer.wait(2.0)
            insert(table, rows)
            if table == "imports" and rows["lines"][0] == 24:
                longer.set()

        monkeypatch.setattr(service.store, "query", looked)
        monkeypatch.setattr(service.store, "insert", written)
    with ThreadPoolExecutor() as threads:
        list(threads.map(import_copy, services, (24, 9)))
    monkeypatch.undo()
    for service in services:  # and what was there first is known again
        import_copy(service, 24)


def test_pieces_of_a_file_that_are_there_are_not_taken_in_again(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(service, tmp_path / "log.ndjson")
    for lines in (3, 5, 8):
        world.do("import", sum(map(len, LINES[:lines])))
    written: list[str] = []
    insert = service.store.insert

    def noted(table: str, rows: pl.DataFrame) -> None:
        written.append(table)
        insert(table, rows)

    monkeypatch.setattr(service.store, "insert", noted)
    world.do("import", sum(map(len, LINES[:8])))
    assert written == []
    world.do("import", sum(map(len, LINES[:9])) - 3)
    assert "predictions" not in written, "half a line is a dead letter"


def test_a_piece_that_is_there_is_taken_in_again_under_another_configuration(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = NOON
    kept = []
    for sampled in (0.5, 0.5, 1.0):
        service = make_service(
            models={"m": {"features": FEATURES, "sampling": {"predictions": sampled, "features": sampled}}}
        )
        service.register_reference("m", REFERENCE, "train")
        assert service.take(WRITTEN, "file", key="log").accepted == 24
        kept += service.store.select("SELECT count() AS n FROM predictions FINAL")["n"].to_list()
    assert kept == [kept[0], kept[0], 24]
    assert kept[0] < 24


def test_what_was_imported_is_kept_in_mind_as_long_as_its_batches(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = NOON
    service = make_service(models={"m": {"features": FEATURES}})
    for days, kept in ((0, 1), (300, 1), (500, 1), (902, 0)):
        clock.at = NOON + timedelta(days=days)
        if days < 500:
            service.take(WRITTEN, "file", key="log")
        service.remove_old(clock.at)
        rows = service.store.select("SELECT count() AS n FROM imports FINAL")["n"].to_list()
        assert (days, rows) == (days, [kept])
