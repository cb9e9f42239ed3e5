"""Whether a window's rows can be told from those of other windows, by features and by pairs of them.

It works on kept feature rows (a sample where ``sampling.features`` is below 1), and on ``MOST_ROWS`` of them at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from detectors.finding import Finding, Status, Subject, Window
from detectors.joint import LEAST_WINDOWS, joint_finding, tell_apart
from detectors.multiplicity import holm
from monitor.findings import latest_findings
from monitor.reference import window_name
from monitor.registry import Model
from monitor.store import Store
from monitor.windows import is_side_by_side

DAY = timedelta(days=1)
LOOKED_BACK = timedelta(days=28)
MOST_WINDOWS = 10
MOST_ROWS = 10_000
"""In both tables together; each window gives as many as any other."""
OF_A_WINDOW = MOST_ROWS // (MOST_WINDOWS + 1)
ALARM = 0.01
"""Holm's p-value of a feature's drift at or below which a window is looked into."""
SATURDAY = 5


def joint_findings(store: Store, model: Model, window: Window, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Detector ``joint``, at most one finding: where it is due, or where the window's ``findings`` say that it drifted.

    It is due for the longest windows of a model that has ``joint`` among its monitors. After an alarm it is measured
    once a day for each length of window, as it costs seconds. A window that is judged again keeps what rests on enough
    rows.
    """
    length = window.end - window.start
    due = "joint" in model.spec.monitors and length == max(model.spec.windows) and is_side_by_side(window)
    if not due and not _alarmed(findings):
        return
    lately = latest_findings(store, window.environment, window.model, window.end - DAY, 1000, "joint")
    own = next((f for f in lately if f.window == window and f.n >= OF_A_WINDOW), None)
    if own is not None:
        yield own
    elif due or not any(_just_before(f.window, window) for f in lately):
        yield _measured(store, model, window)


def _alarmed(findings: Sequence[Finding]) -> bool:
    of_all = [f for f in findings if f.detector == "drift" and f.p_value is not None and not f.subject.without]
    adjusted = holm([f.p_value for f in of_all if f.p_value is not None])
    return any(p <= ALARM and f.severity >= 1 for f, p in zip(of_all, adjusted.tolist(), strict=True))


def _just_before(other: Window, window: Window) -> bool:
    return other.end - other.start == window.end - window.start and other.end < window.end


def _measured(store: Store, model: Model, window: Window) -> Finding:
    sample = _Rows(store, model)
    least = model.spec.minimum_rows
    samples = (sample(*at, OF_A_WINDOW) for at in _alike(window, model.spec.timezone))
    others = list(itertools.islice((rows for rows in samples if rows.height >= least), MOST_WINDOWS))
    if len(others) >= LEAST_WINDOWS:
        of_window = np.repeat(np.arange(len(others)), [rows.height for rows in others])
        current = sample(window.start, window.end, OF_A_WINDOW)
        found = tell_apart(pl.concat(others), current, of_window, least)
        return joint_finding(window, "other_windows", found)
    reference = model.spec.reference.window if model.spec.reference else None
    if reference is not None and reference.end <= window.start:
        baseline = sample(reference.start, reference.end, MOST_ROWS // 2)
        found = tell_apart(baseline, sample(window.start, window.end, MOST_ROWS // 2), None, least)
        return joint_finding(window, f"reference:{window_name(reference)}", found)
    why = (
        f"of the windows at these hours in the four weeks before, {len(others)} have {least} kept rows, and "
        f"{LEAST_WINDOWS} are needed; nor is there a reference window before this one"
    )
    return Finding(window, Subject(), "joint", status=Status.NOT_ENOUGH_DATA, message=why)


def _alike(window: Window, timezone: str) -> Iterator[tuple[datetime, datetime]]:
    """The same hours of earlier days, the latest first: of working days for one, else of weekends."""
    length = window.end - window.start
    start = window.start.astimezone(ZoneInfo(timezone))
    days = -(-length // DAY)
    for back in range(days, LOOKED_BACK // DAY + 1, days):
        earlier = start - timedelta(days=back)
        if (earlier.weekday() >= SATURDAY) == (start.weekday() >= SATURDAY):
            at = earlier.astimezone(UTC)
            if at + length <= window.start:  # where the clocks were changed, a day is longer
                yield at, at + length


class _Rows:
    """Samples of a model's feature rows as tables: a column per declared feature."""

    def __init__(self, store: Store, model: Model) -> None:
        self._store = store
        self._model = model
        schemas = store.query("model_schemas", environment=model.environment, model=model.name)
        self._names = {r["schema_id"]: (r["num_names"], r["cat_names"]) for r in schemas.iter_rows(named=True)}

    def __call__(self, start: datetime, end: datetime, most: int) -> pl.DataFrame:
        spec = self._model.spec
        place = {"environment": self._model.environment, "model": self._model.name}
        rows = self._store.query("row_sample", **place, start=start, end=end, most=most)
        columns = dict.fromkeys(spec.num_names, pl.Float64()) | dict.fromkeys(spec.cat_names, pl.String())
        tables = [pl.DataFrame(schema=columns)]
        for (schema_id,), group in rows.group_by("schema_id", maintain_order=True):
            num_names, cat_names = self._names[schema_id]
            held = [("num", i, n) for i, n in enumerate(num_names) if n in spec.num_names]
            held += [("cat", i, n) for i, n in enumerate(cat_names) if n in spec.cat_names]
            tables.append(group.select(pl.col(kind).list.get(at).alias(name) for kind, at, name in held))
        return pl.concat(tables, how="diagonal_relaxed")
