"""What a window is compared with in each place, so that the smallest place that explains a change can be named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from given import NOON, ServiceMaker, ndjson, prediction
from numpy.typing import NDArray

from detectors.finding import Finding, Subject, Window
from detectors.layout import FeatureCells, Kind, Layout
from monitor.config import ModelSpec
from monitor.measure import Measure, but_for_the_worst
from monitor.registry import Model, Reference
from monitor.windows import Traffic

HOUR = timedelta(hours=1)
WINDOW = Window("production", "m", NOON, NOON + HOUR)
LAYOUT = Layout((FeatureCells("x", Kind.CATEGORICAL, levels=("a", "b", "c")),))
USUAL, OTHER, BAD = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5), (0.1, 0.1, 0.8)
SPEC = ModelSpec.model_validate({"routing": "random", "monitors": ["drift", "servers", "versions"]})
Part = tuple[str, str, str, Sequence[float]]


def traffic(*parts: Part, rows: int = 4000) -> Traffic:
    """Each part: version, server, segment and shares; the rows without a segment are added up."""
    frame = pl.DataFrame([p[:3] for p in parts], schema=["version", "server", "segment"], orient="row")
    counts = np.array([[*(round(rows * share) for share in p[3]), 0, 0, 0, 0] for p in parts])
    sums: dict[tuple[str, str, str], NDArray[np.int64]] = {}
    for (version, server, _), vector in zip(frame.iter_rows(), counts, strict=True):
        sums[version, server, ""] = sums.get((version, server, ""), 0) + vector
    whole = pl.DataFrame(list(sums), schema=frame.schema, orient="row")
    table = pl.concat([frame.filter(pl.col("segment") != ""), whole])
    matrix = np.concatenate([counts[(frame["segment"] != "").to_numpy()], np.array(list(sums.values()))])
    plain = {"role": "live", "weight": 1.0, "failures": 0, "undeclared_keys": 0, "unplaced": 0}
    return Traffic(table.with_columns(rows=matrix.sum(axis=1), **{k: pl.lit(v) for k, v in plain.items()}), matrix)


def drift(now: Traffic, before: Traffic, *, segments: bool = True) -> Mapping[tuple[str, ...], Finding]:
    """The drift findings by segment, or by what is left out."""
    of_segments = {s: before.counts(segment=s) for s in before.segments()} if segments else {}
    reference = Reference("window", "", before.counts(), of_segments)
    model = Model("production", "m", SPEC, LAYOUT, {"": reference})
    found = [f for f in Measure(model, WINDOW, now, "1").findings() if f.detector == "drift"]
    return {f.subject.without or (f.subject.segment,): f for f in found}


def test_segments_that_differ_for_ever_have_not_drifted() -> None:
    before = traffic(("1", "s1", "plan=vip", USUAL), ("1", "s1", "plan=free", OTHER))
    now = traffic(("1", "s1", "plan=vip", USUAL), ("1", "s1", "plan=free", OTHER), rows=1000)
    found = drift(now, before)
    assert found.keys() == {("",), ("plan=vip",), ("plan=free",)}
    assert all(f.p_value == pytest.approx(1.0, abs=0.2) for f in found.values())


def test_a_segment_that_changed_is_left_out_once_and_the_rest_is_well() -> None:
    before = traffic(("1", "s1", "plan=vip", USUAL), ("1", "s1", "plan=free", OTHER), ("1", "s1", "", OTHER))
    now = traffic(("1", "s1", "plan=vip", BAD), ("1", "s1", "plan=free", OTHER), ("1", "s1", "", OTHER))
    found = drift(now, before)
    rest = found["segment=plan=vip",]
    assert rest.n == 8000
    assert rest.p_value is not None
    assert rest.p_value > 0.5
    assert rest.effects["shared_high"] < 0.1


def test_without_counts_of_its_own_a_segment_is_not_compared() -> None:
    before = traffic(("1", "s1", "plan=vip", USUAL), ("1", "s1", "plan=free", OTHER))
    assert drift(before, before, segments=False).keys() == {("",)}


def test_servers_with_one_fault_are_left_out_together() -> None:
    good = [("1", f"s{i}", "", USUAL) for i in range(6)]
    bad: list[Part] = [("1", "t1", "", BAD), ("1", "t2", "", BAD)]
    found = drift(traffic(*good, *bad), traffic(*good, ("1", "t1", "", USUAL), ("1", "t2", "", USUAL)))
    assert found.keys() == {("",), ("server=t1", "server=t2")}


def test_of_two_versions_that_differ_each_is_left_out_once() -> None:
    good: list[Part] = [("1", "s1", "", USUAL), ("1", "s2", "", USUAL), ("2", "s3", "", USUAL)]
    found = drift(traffic(*good[:2], ("2", "s3", "", BAD)), traffic(*good))
    assert found.keys() == {("",), ("version=1",), ("version=2", "server=s3")}
    assert found["version=2", "server=s3"].effects["shared_high"] < 0.1
    assert "shared" not in found["version=1",].effects, "version 1 did not change"


def test_a_stuck_column_is_named() -> None:
    usual, stuck = traffic(("1", "s1", "", USUAL)), traffic(("1", "s1", "", (0.0, 1.0, 0.0)))
    assert [f.component for f in drift(stuck, usual).values()] == ["stuck"]


def test_a_reference_window_keeps_the_counts_of_its_segments(make_service: ServiceMaker) -> None:
    span = {"start": NOON, "end": NOON + HOUR}
    spec = {"windows": ["1h"], "segments": {"plan": ["vip", "free"]}, "reference": {"window": span}}
    service = make_service(models={"m": spec})
    events = [
        prediction(i, NOON + i * timedelta(seconds=1), segments={"plan": "vip" if i % 4 else "free"})
        for i in range(1200)
    ]
    service.clock.at = NOON + 2 * HOUR  # type: ignore[attr-defined]  # the tests give it a clock that can be set
    service.take(ndjson(events), "http")
    model = service.registry.get("production", "m")
    findings = service.judge.traffic(model, WINDOW, NOON + 2 * HOUR)
    rows = {f.subject.segment: f.n_baseline for f in findings if f.detector == "drift" and f.subject.feature == "x"}
    assert rows == {"": 1200, "plan=vip": 900, "plan=free": 300}
    made = service.registry.get("production", "m").references[""]
    kept = make_service(models={"m": spec}).registry.get("production", "m").references[""]
    assert {s: counts.tolist() for s, counts in kept.segments.items()} == {
        s: counts.tolist() for s, counts in made.segments.items()
    }


def test_a_reference_file_that_names_segments_has_their_counts(make_service: ServiceMaker) -> None:
    """Of a column with rare levels, the rows that chose the levels are in neither the whole nor its segments."""
    features = {"x": "numeric", "c": "categorical"}
    service = make_service(models={"m": {"segments": {"plan": ["vip"]}, "features": features}})
    rare = ["a"] * 1998 + ["b", "c"]
    table = pl.DataFrame({"x": np.arange(2000.0), "c": rare, "segments.plan": ["vip", "gold"] * 1000})
    service.register_reference("m", table, "training")
    model = service.registry.get("production", "m")
    reference, layout = model.references[""], model.layout
    assert layout is not None
    assert list(reference.segments) == ["plan=other", "plan=vip"]
    assert reference.segments["plan=vip"][layout.spans["x"]].sum() == 1000
    np.testing.assert_array_equal(sum(reference.segments.values()), reference.counts)


def test_a_reference_without_segments_is_kept_as_it_is(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": {"x": "numeric"}}})
    service.register_reference("m", pl.DataFrame({"x": np.arange(2000.0)}), "training")
    assert make_service(models={}).registry.get("production", "m").references[""].segments == {}


def test_importance_is_a_number_that_is_not_negative() -> None:
    spec = {"features": {"income": {"kind": "numeric", "importance": 0.4}, "age": "numeric"}}
    assert ModelSpec.model_validate(spec).importance == {"income": 0.4, "age": 1.0}
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        ModelSpec.model_validate({"features": {"income": {"importance": -1}}})


@pytest.mark.parametrize("component", ["unseen", "units", "scale"])
def test_the_others_are_not_accused_where_one_server_has_a_fault_that_nobody_had_before(component: str) -> None:
    """Nothing is said of routing, so none can be set aside; and of a first fault there is no usual score."""

    def contrast(server: str, component: str, unseen: float, scale: float) -> dict[str, Finding]:
        known = {"scale": scale, "shape": 2.0}
        about = (WINDOW, Subject("1", server, feature="x"), "server_outlier", "fleet")
        scores = {"unseen": unseen, **known}
        told = Finding(*about, component=component, severity=abs(scale), p_value=1e-9, scores=scores, calibrated=known)
        return {"x": told}

    bad = contrast("pod-1", component, 30.0, 20.0)
    found = but_for_the_worst({"pod-0": contrast("pod-0", "scale", -16.0, -7.0), "pod-1": bad})
    assert {f.subject.server: f.p_value for f in found} == {"pod-0": None, "pod-1": 1e-9}
