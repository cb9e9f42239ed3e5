"""Whatever is done to what came in, and in whatever order: the counts are those of the events that were sent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pytest
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reread import NAME, Log

from monitor.config import Config
from monitor.fleet import served
from monitor.folding import fold
from monitor.ingest import Ingest, Origin
from monitor.service import Service

HOUR = timedelta(hours=1)
SIZE, BATCHES = 6, 4
REFERENCE = pl.DataFrame({"x": [1.0, 2.0] * 200, "c": ["a", "b"] * 200})
TABLES = (
    "batches",
    "batch_hours",
    "predictions",
    "features",
    "profile_batches",
    "profile_marks",
    "profile_hours",
    "profile_folds",
    "dead_letters",
    "replayed_letters",
)
FEATURES = {"x": "numeric", "c": "categorical"}
CONFIG = {
    "strict": {"models": {"m": {"features": FEATURES}}, "unknown_models": "reject"},
    "open": {"models": {"m": {"features": FEATURES}, "new": {"features": FEATURES}}, "unknown_models": "reject"},
}
LINES = [
    b"garbage" if n % SIZE == 5 else ndjson([prediction(n, NOON - HOUR * (1 + n % 2), model="m" if n % 3 else "new")])
    for n in range(SIZE * BATCHES)
]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, BATCHES - 1)),
        st.tuples(st.sampled_from(["lose", "double", "replay", "audit", "fold", "change", "again"]), st.just(0)),
    ),
    min_size=3,
    max_size=10,
)


@pytest.fixture
def open_service(make_service: ServiceMaker, clock: StillClock) -> Service:
    clock.at = NOON
    service = make_service(**CONFIG["open"])
    for model in ("m", "new"):
        service.register_reference(model, REFERENCE, "train")
    return service


class World:
    """A service whose rules change, and the log that it has taken batches of."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.log = Log([(line, NOON - HOUR / 2) for line in LINES])
        self.taken: set[int] = set()
        self.rules = "strict"
        for table in TABLES:
            service.store.execute(f"TRUNCATE TABLE {table}")
        self._apply()

    def _apply(self) -> None:
        service = self.service
        config = Config.model_validate({"store": {"path": service.config.store.path}, **CONFIG[self.rules]})
        service.ingest = Ingest(service.store, service.registry, service.references, config)
        service.dead_letters._ingest = service.ingest  # noqa: SLF001 - a service with other rules, without opening the store anew
        service.auditor = self.log.auditor(service)

    def do(self, step: str, batch: int) -> None:
        """One step; ``batch`` is for taking one in."""
        if step == "take":
            self._take(batch)
        else:
            getattr(self, step)()

    def _take(self, batch: int) -> None:
        self.log.take(self.service, batch * SIZE, batch * SIZE + SIZE - 1)
        self.taken.add(batch)

    def again(self) -> None:
        """As the intake does with what was begun under other rules."""
        for batch in self.taken:
            self.service.forget_batch(Origin(NAME, str(batch * SIZE), NOON, None, batch * SIZE + SIZE - 1))
            self._take(batch)

    def lose(self) -> None:
        """Rows and profiles go."""
        self.service.store.execute("DELETE FROM predictions WHERE prediction_id IN ('p1', 'p7')")
        self.service.store.execute("DELETE FROM profile_batches WHERE batch = '6'")

    def double(self) -> None:
        """A row is there that nobody sent."""
        rows = self.service.store.select("SELECT * FROM predictions FINAL WHERE startsWith(source, 'kafka') LIMIT 1")
        self.service.store.insert("predictions", rows.with_columns(row=pl.lit(99, pl.UInt32)))

    def replay(self) -> None:
        """What the rules allow by now."""
        self.service.replay_dead_letters()

    def fold(self) -> None:
        """Hours are added up."""
        for model in ("m", "new"):
            fold(self.service.store, "production", model, NOON - 4 * HOUR, NOON, NOON)

    def change(self) -> None:
        """Other rules."""
        self.rules = "open" if self.rules == "strict" else "strict"
        self._apply()

    def audit(self) -> list[str]:
        found = self.service.auditor.audit(NOON - 4 * HOUR, NOON, NOON + HOUR, repair=True)
        return [f"{d.what} {d.expected} {d.found} {d.batch} {d.repair}" for d in found]

    def settle(self) -> None:
        """Have everything found that can be."""
        rounds = iter(range(6))
        while told := self.audit():
            assert next(rounds, None) is not None, told
        if self.rules == "strict":
            self.change()
        self.replay()
        assert self.audit() == []

    def counted(self) -> dict[str, tuple[int, int, int]]:
        """Of each model: what profiles count, what judging reads, and the rows."""
        store = self.service.store
        numbers = {}
        for model in ("m", "new"):
            asked = f"WHERE model = '{model}'"
            profiled = store.select(f"SELECT sum(n) AS n FROM profile_batches FINAL {asked} AND segment = ''")["n"][0]  # noqa: S608 - ours
            rows = store.select(f"SELECT count() AS n FROM predictions FINAL {asked}")["n"][0]  # noqa: S608 - ours
            read = served(store, "production", model, NOON - 4 * HOUR, NOON)["rows"].sum()
            numbers[model] = (int(profiled), int(read), int(rows))
        return numbers

    def sent(self) -> dict[str, tuple[int, int, int]]:
        """What there must be of each model once every rule allows it: gaps between batches are taken in, too."""
        low, high = min(self.taken, default=0), max(self.taken, default=-1)
        there = [n for n in range(low * SIZE, (high + 1) * SIZE) if n % SIZE != 5]
        new = sum(1 for n in there if n % 3 == 0)
        return {"m": (len(there) - new,) * 3, "new": (new,) * 3}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(todo=steps)
def test_any_order_of_taking_repairing_and_replaying_gives_what_was_sent(
    open_service: Service, todo: Sequence[tuple[str, int]]
) -> None:
    world = World(open_service)
    for step, batch in todo:
        world.do(step, batch)
    world.settle()
    assert world.counted() == world.sent()
