"""What is sent is what is kept, once; counts are of everything, rows of a sample."""

from __future__ import annotations

import json
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import orjson
import polars as pl
import pytest
from given import NOON, ServiceMaker, ndjson, prediction

from alerts.ledger import LedgerError
from monitor.columns import prediction_columns
from monitor.config import ConfigError
from monitor.rows import HASH_FACTOR, HASH_RANGE, kept
from monitor.service import Service, import_file
from monitor.windows import read_traffic

DAY = timedelta(days=1)
FEATURES = {"x": "numeric", "c": "categorical"}


def rows(service: Service, table: str) -> int:
    return int(service.store.select(f"SELECT count() AS n FROM {table} FINAL")["n"][0])  # noqa: S608 - a name from this file


def profile(service: Service) -> tuple[int, int]:
    """Events counted, and the sum over all cells of one feature."""
    model = service.registry.get("production", "m")
    traffic = read_traffic(service.store, model, NOON - DAY, NOON + DAY)
    cells = traffic.counts()[model.layout.spans["x"]].sum() if model.layout else 0
    return traffic.rows(), int(cells)


def train(service: Service) -> None:
    import polars as pl

    table = pl.DataFrame({"x": [float(i % 7) for i in range(500)], "c": ["a", "b"] * 250})
    service.register_reference("m", table, "train")


def test_sending_the_same_bytes_again_changes_nothing(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": FEATURES}})
    train(service)
    body = ndjson([prediction(i, NOON) for i in range(50)])
    for _ in range(3):
        assert service.take(body, "http").to_dict() == {"accepted": 50, "rejected": []}
    assert (rows(service, "predictions"), rows(service, "features"), profile(service)) == (50, 50, (50, 50))


def test_the_same_key_names_the_same_batch(make_service: ServiceMaker) -> None:
    service = make_service()
    for _ in range(2):
        service.take(ndjson([prediction(1, NOON)]), "http", "key-1")
    service.take(ndjson([prediction(1, NOON)]), "http", "key-2")
    assert rows(service, "predictions") == 2


def test_bad_lines_are_kept_with_their_bytes_and_place(make_service: ServiceMaker) -> None:
    service = make_service()
    body = ndjson([prediction(1, NOON)]) + b"\n{\xff broken\n" + ndjson([prediction(2, NOON + timedelta(minutes=6))])
    answer = service.take(body, "http", "k").to_dict()
    assert answer["accepted"] == 1
    assert [r["line"] for r in answer["rejected"]] == [2, 3]
    stored = service.store.select(
        "SELECT reason, row, batch, CAST(hex(raw), 'String') AS raw FROM dead_letters ORDER BY row"
    )
    assert stored["reason"].to_list() == ["not_utf8", "in_the_future"]
    assert bytes.fromhex(stored["raw"][0]) == b"{\xff broken"


def test_counts_are_of_everything_and_rows_of_a_sample(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": FEATURES, "sampling": {"features": 0.2, "predictions": 0.5}}})
    train(service)
    service.take(ndjson([prediction(i, NOON) for i in range(2000)]), "http")
    ids = [f"p{i}" for i in range(2000)]
    expected = [
        sum(zlib.crc32(i.encode()) * HASH_FACTOR % HASH_RANGE < p * HASH_RANGE for i in ids) for p in (0.2, 0.5)
    ]
    assert [rows(service, "features"), rows(service, "predictions")] == expected
    assert profile(service) == (2000, 2000)
    weights = service.store.select("SELECT sum(weight) AS w, count() AS n FROM features FINAL").to_dicts()[0]
    assert weights["w"] == pytest.approx(weights["n"] / 0.2)


@pytest.mark.parametrize(("text", "hashed"), [("a", 4200413011), ("0001", 4232123812)])
def test_the_sampling_hash_is_the_agreed_one(text: str, hashed: int, make_service: ServiceMaker) -> None:
    assert kept(pl.Series([text]), (hashed + 1) / HASH_RANGE).tolist() == [True]
    assert kept(pl.Series([text]), hashed / HASH_RANGE).tolist() == [False]
    in_store = make_service().store.select(
        "SELECT bitAnd(toUInt64(CRC32({id:String})) * 2654435761, 4294967295) AS h", id=text
    )
    assert in_store["h"].to_list() == [hashed]


def test_a_model_without_a_layout_is_profiled_from_its_first_rows(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([prediction(i, NOON) for i in range(6000)]), "http")
    assert profile(service) == (6000, 0)
    service.take(ndjson([prediction(i, NOON + timedelta(minutes=1)) for i in range(6000, 12_000)]), "http")
    assert profile(service) == (12_000, 12_000)
    service.take(ndjson([prediction(i, NOON) for i in range(12_000, 12_100)]), "http")
    assert profile(service) == (12_100, 12_100)


def test_a_reference_profiles_what_came_before_it(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": FEATURES, "segments": {"plan": ["vip"]}}})
    for number in range(5):  # several batches, so that each must find its own profile again
        service.take(ndjson([prediction(10 * number + i, NOON, segments={"plan": "vip"}) for i in range(10)]), "http")
    before = service.store.select("SELECT count() AS n FROM profile_batches FINAL")["n"][0]
    train(service)
    assert profile(service) == (50, 50)
    assert service.store.select("SELECT count() AS n FROM profile_batches FINAL")["n"][0] == before


def test_odd_values_survive_being_stored_and_profiled_later(make_service: ServiceMaker) -> None:
    odd: list[Any] = [1.0, None, "NaN", "seven", [1], 10**400]
    service = make_service(models={"m": {"features": FEATURES}})
    events = [prediction(i, NOON, features={"x": v, "c": "a", "new": i}) for i, v in enumerate(odd)]
    service.take(b"\n".join(orjson.dumps(e) if e["features"]["x"] != 10**400 else huge(e) for e in events), "http")
    train(service)
    model = service.registry.get("production", "m")
    assert model.layout
    counts = read_traffic(service.store, model, NOON - DAY, NOON + DAY).counts()[model.layout.spans["x"]]
    found = {label: int(n) for label, n in zip(model.layout.by_name["x"].labels, counts, strict=True) if n}
    assert found == {"1": 1, "missing": 1, "not_finite": 2, "wrong_kind": 2}
    assert service.store.select("SELECT sum(undeclared) AS n FROM profile_batches FINAL")["n"][0] == len(odd)


def huge(event: dict[str, Any]) -> bytes:
    import json

    return json.dumps(event).encode()


def test_an_unknown_model_grows_features_until_its_layout_is_made(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([prediction(1, NOON, features={"x": 1.0})]), "http")
    service.take(ndjson([prediction(2, NOON, features={"late": "v", "x": 2.0})]), "http")
    view = service.store.select("SELECT x, late FROM model_m ORDER BY x")
    assert view.to_dicts() == [{"x": 1.0, "late": None}, {"x": 2.0, "late": "v"}]
    again = make_service()
    assert list(again.registry.get("production", "m").spec.features) == ["x", "late"]


def test_environments_are_kept_apart(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([prediction(1, NOON), prediction(1, NOON, environment="staging")]), "http")
    assert [len(service.fleet("m", NOON + DAY, e)) for e in ("production", "staging")] == [1, 1]
    assert [m["environment"] for m in service.models()] == ["production", "staging"]


def test_everything_is_still_there_after_a_restart(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": FEATURES}})
    train(service)
    service.take(ndjson([prediction(i, NOON) for i in range(300)]), "http")
    before = service.registry.get("production", "m")
    again = make_service(models={"m": {"features": FEATURES}})
    after = again.registry.get("production", "m")
    assert before.layout is not None
    assert after.layout is not None
    assert after.layout.id == before.layout.id
    assert after.references[""].counts.tolist() == before.references[""].counts.tolist()
    assert profile(again) == (300, 300)


def test_a_key_that_is_used_again_overwrites_nothing(make_service: ServiceMaker) -> None:
    service = make_service()
    service.take(ndjson([prediction(i, NOON) for i in range(10)]), "http", "same")
    service.take(ndjson([prediction(i, NOON) for i in range(20, 25)]), "http", "same")
    assert rows(service, "predictions") == 15


def test_a_file_that_has_grown_is_imported_without_counting_twice(make_service: ServiceMaker, tmp_path: Path) -> None:
    service = make_service(models={"m": {"features": FEATURES}})
    train(service)
    path = tmp_path / "log.ndjson"
    lines = [ndjson([prediction(i, NOON)]) + b"\n" for i in range(400)]
    for length in (100, 250, 250, 400):
        path.write_bytes(b"".join(lines[:length]))
        assert sum(answer["accepted"] for _, answer in import_file(service, path, 20_000)) == length
        assert (rows(service, "features"), rows(service, "predictions"), profile(service)) == (
            length,
            length,
            (length, length),
        )


def test_files_that_begin_alike_are_two_files(make_service: ServiceMaker, tmp_path: Path) -> None:
    service = make_service(models={"m": {"features": FEATURES}})
    train(service)
    first = ndjson([prediction(0, NOON)]) + b"\n"
    files = {}
    for name, start in (("a", 100), ("b", 200), ("c", 300)):
        files[name] = tmp_path / name
        files[name].write_bytes(first + ndjson([prediction(start + i, NOON) for i in range(50)]) + b"\n")
    for path in (*files.values(), *files.values()):
        assert sum(answer["accepted"] for _, answer in import_file(service, path, 20_000)) == 51
    assert (rows(service, "predictions"), profile(service)) == (153, (153, 153))
    files["b"].write_bytes(files["b"].read_bytes() + ndjson([prediction(900, NOON)]) + b"\n")
    list(import_file(service, files["b"], 20_000))
    assert (rows(service, "predictions"), profile(service)) == (154, (154, 154))


def test_old_data_over_many_years_can_be_imported(make_service: ServiceMaker) -> None:
    service = make_service()
    assert (
        service.take(ndjson([prediction(i, NOON - i * timedelta(days=31)) for i in range(240)]), "file").accepted == 240
    )
    assert rows(service, "predictions") == 240


def test_values_nested_too_deeply_cost_nobody_else_a_thing(make_service: ServiceMaker) -> None:
    service = make_service()
    deep = (
        json.dumps(prediction(1, NOON))
        .replace('"features": {', '"features": {"d": ' + "[" * 1005 + "]" * 1005 + ", ")
        .encode()
    )
    answer = service.take(b"\n".join([ndjson([prediction(0, NOON)]), deep, ndjson([prediction(2, NOON)])]), "http")
    assert answer.accepted + len(answer.rejects) == 3
    assert rows(service, "predictions") == answer.accepted >= 2


def test_a_layout_that_cannot_be_made_yet_stops_nothing(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": FEATURES, "minimum_rows": 20_000}})
    both = [prediction(i, NOON) for i in range(10_500)] + [prediction(1, NOON, model="other")]
    assert service.take(ndjson(both), "http").accepted == 10_501
    assert [m["model"] for m in service.models()] == ["m", "other"]


def test_an_array_keeps_what_its_elements_were(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": FEATURES}})
    train(service)
    good = json.dumps(prediction(1, NOON, features={"x": float("nan"), "c": "a"}))
    half = json.dumps(prediction(2, NOON)).replace('"p2"', '"\\ud800"')
    answer = service.take(f"[{good}, {half}]".encode(), "http")
    assert (answer.accepted, [r.reason for r in answer.rejects]) == (1, ["not_utf8"])
    model = service.registry.get("production", "m")
    assert model.layout
    counts = read_traffic(service.store, model, NOON - DAY, NOON + DAY).counts()
    span = model.layout.spans["x"]
    assert counts[span][model.layout.by_name["x"].state("not_finite")] == 1


def test_a_row_is_counted_in_the_minute_it_is_kept_in(make_service: ServiceMaker) -> None:
    service = make_service(models={"m": {"features": FEATURES}})
    late = NOON + timedelta(seconds=59, microseconds=999_700)
    service.clock.at = NOON + DAY  # type: ignore[attr-defined]  # the tests give it a clock that can be set
    service.take(ndjson([prediction(i, late) for i in range(3)]), "http")
    train(service)
    assert profile(service) == (3, 3)


def test_a_sender_may_write_only_to_its_models(make_service: ServiceMaker) -> None:
    service = make_service()
    nested = json.dumps(prediction(1, NOON, model="secret")).replace(
        '"features": {', '"features": {"d": ' + "[" * 990 + "]" * 990 + ", "
    )
    health = {"type": "health", "server": "s", "ok": True, "latency_ms": 1, "timestamp": NOON.timestamp()}
    body = b"\n".join([nested.encode(), ndjson([health, prediction(1, NOON)])])
    receipt = service.take(body, "http", models=frozenset({"m"}))
    assert receipt.accepted == 1
    assert [m["model"] for m in service.models()] == ["m"]
    assert rows(service, "health") == 0


def test_a_missing_hash_key_is_said_at_the_start(make_service: ServiceMaker) -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        make_service(models={"m": {"privacy": {"hash": ["c"], "hash_key_env": "NO_SUCH_KEY"}}})


@pytest.mark.parametrize("odd", ['"12"', "[1]", "Infinity", "null", "{}", "0"])
def test_a_label_may_hold_anything_beside_its_own_fields(
    odd: str, make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    privacy = {"hash": ["prediction_id"], "hash_key_env": "TELLTALE_TEST_HASH_KEY"}
    monkeypatch.setenv("TELLTALE_TEST_HASH_KEY", "k")
    service = make_service(models={"m": {"privacy": privacy}})
    line = f'{{"type": "label", "model": "m", "prediction_id": "p", "label": 1, "timestamp": {NOON.timestamp()}'
    body = f'{line}, "features": {odd}, "segments": {odd}}}'
    assert service.take(body.encode(), "http").accepted == 1


def test_rows_are_taken_in_while_nobody_can_claim_the_making_of_a_layout(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    monkeypatch.setattr("monitor.reference.FIRST_ROWS", 300)

    def away(*_: object) -> NoReturn:
        raise LedgerError("the database is away")

    with monkeypatch.context() as outage:
        outage.setattr(service.ledger, "claim", away)
        service.take(ndjson([prediction(n, NOON) for n in range(400)]), "http")
    assert service.registry.get("production", "m").layout is None
    service.take(ndjson([prediction(n, NOON) for n in range(400, 800)]), "http")
    assert service.registry.get("production", "m").layout is not None


def test_a_line_that_brings_a_fault_to_light_holds_nothing_up(
    make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    service.take(ndjson([prediction(n, NOON) for n in range(300)]), "http")
    service.evaluate("m", NOON)

    def faulty(events: Any, spec: Any) -> Any:
        if any(e["prediction_id"] in ("p402", "p405") for e in events):
            raise ZeroDivisionError("a fault of ours")
        return prediction_columns(events, spec)

    monkeypatch.setattr("monitor.ingest.prediction_columns", faulty)
    body = ndjson([prediction(n, NOON) for n in range(400, 410)])
    for _ in range(2):  # the same again decides the same
        receipt = service.take(body, "http")
        assert (receipt.accepted, [(r.row, r.reason) for r in receipt.rejects]) == (
            8,
            [(2, "internal_error"), (5, "internal_error")],
        )
    counts = service.status()["rows"]
    assert (counts["predictions"], counts["dead_letters"]) == (308, 2)
    profiled = service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")
    assert profiled["n"].to_list() == [308]


def test_a_fault_that_no_line_brings_is_not_hidden(make_service: ServiceMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service()

    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(service.registry, "learn", broken)
    with pytest.raises(ZeroDivisionError):
        service.take(ndjson([prediction(1, NOON)]), "http")
    assert service.status()["rows"]["dead_letters"] == 0
