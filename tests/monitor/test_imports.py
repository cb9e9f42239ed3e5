"""Files that grow, and older copies of them: each line counts once, in rows and in profiles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

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
        """Rows, and events in what judging reads."""
        rows = self.service.store.select("SELECT count() AS n FROM predictions FINAL")["n"][0]
        return int(rows), int(served(self.service.store, "production", "m", NOON - HOUR, NOON)["rows"].sum())

    def letters(self) -> int:
        """Dead letters that count."""
        return sum(group["lines"] for group in self.service.dead_letter_groups())


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
