"""Dead letters: a broken topic is not drained into them, and what was refused can be taken in later."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from broker import Broker
from given import NOON, ServiceMaker, StillClock, ndjson, prediction
from hypothesis import given
from hypothesis import strategies as st
from processes import wait_until
from typer.testing import CliRunner

from monitor.config import DeadLetterLimits
from monitor.dead_letter_watch import DeadLetterWatch, TooManyDeadLettersError
from monitor.ingest import Origin
from monitor.service import Service

HOUR = timedelta(hours=1)
LOG = "kafka/t/0/x"


def watch(share: float = 1.0, in_a_row: int = 10**9) -> DeadLetterWatch:
    return DeadLetterWatch(DeadLetterLimits(share=share, in_a_row=in_a_row))


def test_too_many_in_a_row_stop_a_log_also_over_batches() -> None:
    watched = watch(in_a_row=10)
    watched.check(LOG, "0", [4, 5, 6, 7, 8, 9], 10)
    watched.check(LOG, "10", [0, 1, 2, 9], 10)
    for _ in range(3):  # trying again changes nothing
        with pytest.raises(TooManyDeadLettersError, match="10 lines in a row are no events"):
            watched.check(LOG, "20", list(range(9)), 10)
    assert list(watched.stopped) == [LOG]
    watched.check("kafka/t/1/x", "0", [], 10)
    watched.check(LOG, "20", [], 10)  # somebody has mended it
    assert watched.stopped == {}


def test_a_share_stops_a_log_only_when_there_is_enough_of_it() -> None:
    watched = watch(share=0.5)
    watched.check(LOG, "0", [0], 1)
    watched.check(LOG, "1", list(range(0, 120, 2)), 120)
    with pytest.raises(TooManyDeadLettersError, match="% of the last 421 lines are no events"):
        watched.check(LOG, "121", list(range(280)), 300)
    watched.check(LOG, "121", list(range(90)), 300)


@given(st.lists(st.tuples(st.integers(1, 8), st.sets(st.integers(0, 7))), max_size=30), st.integers(1, 6))
def test_rows_of_refused_lines_are_counted_as_in_one_list(batches: list[tuple[int, set[int]]], most: int) -> None:
    watched = watch(in_a_row=most)
    refused = [[row in rows for row in range(size)] for size, rows in batches]
    whole, stops = "", False
    for number, batch in enumerate(refused):
        whole += "".join("x" if r else "." for r in batch)
        try:
            watched.check(LOG, str(number), [row for row, r in enumerate(batch) if r], len(batch))
        except TooManyDeadLettersError:
            stops = True
            break
    assert stops == ("x" * most in whole)


def test_a_broken_topic_is_stopped_at_and_said_loudly(
    make_service: ServiceMaker, clock: StillClock, broker: Broker
) -> None:
    from monitor.intake import run_intake
    from monitor.sources.kafka import open_kafka

    clock.at = NOON
    topic = broker.topic(partitions=1)
    broker.produce(topic, [{"value": b"garbage"}] * 200)
    kafka = {"bootstrap_servers": [broker.bootstrap], "topics": [topic], "group": topic}
    service = make_service(sources={"kafka": {**kafka, "dead_letters": {"in_a_row": 150}}})
    spec = service.config.sources.kafka
    assert spec is not None
    stopped = threading.Event()
    arguments = (lambda: open_kafka(spec), service, service.metrics, stopped)
    thread = threading.Thread(target=run_intake, args=arguments)
    thread.start()
    try:
        wait_until(lambda: service.ingest.watch.stopped, "the log to be stopped at")
        with pytest.raises(TooManyDeadLettersError, match="200 lines in a row"):
            service.check()
        assert service.metrics.registry.get_sample_value("telltale_stopped_logs") == 1
        assert service.status()["rows"]["dead_letters"] == 0
    finally:
        stopped.set()
        thread.join()


@pytest.fixture
def refusing(make_service: ServiceMaker, clock: StillClock) -> Service:
    """A service that has refused events of a model that is not declared, and a line that is none."""
    clock.at = NOON
    service = make_service(models={"other": {}}, unknown_models="reject")
    events = [prediction(n, NOON - HOUR, model="m" if n % 2 else "other") for n in range(100)]
    service.take(ndjson(events) + b"\n\xff\n", "http")
    return service


def rows(service: Service) -> tuple[int, int]:
    profiled = service.store.select("SELECT sum(n) AS n FROM profile_batches FINAL WHERE segment = ''")["n"][0]
    return service.status()["rows"]["predictions"], profiled


def test_what_was_refused_is_taken_in_once_when_the_rules_allow_it(
    refusing: Service, make_service: ServiceMaker, clock: StillClock
) -> None:
    assert {(g["reason"], g["lines"]) for g in refusing.dead_letter_groups()} == {
        ("unknown_model", 50),
        ("not_utf8", 1),
    }
    assert refusing.replay_dead_letters() == {"taken": 0, "left": 51}
    service = make_service(models={"m": {}}, unknown_models="reject")
    clock.at = NOON + 5 * HOUR
    assert service.replay_dead_letters("unknown_model") == {"taken": 50, "left": 1}
    assert service.replay_dead_letters() == {"taken": 0, "left": 1}
    assert rows(service) == (100, 100)
    received = service.store.select("SELECT DISTINCT received FROM predictions")["received"].to_list()
    assert received == [NOON]
    assert service.audit(NOON - 2 * HOUR, NOON + HOUR, repair=False)["disagreements"] == []


def test_a_second_replay_keeps_what_the_first_took_in(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service(models={"z": {}}, unknown_models="reject")
    service.take(ndjson([prediction(n, NOON - HOUR, model="ab"[n % 2]) for n in range(20)]), "http")
    service = make_service(models={"a": {}}, unknown_models="reject")
    assert service.replay_dead_letters() == {"taken": 10, "left": 10}
    service = make_service(models={"a": {}, "b": {}}, unknown_models="reject")
    assert service.replay_dead_letters() == {"taken": 10, "left": 0}
    assert rows(service) == (20, 20)


def test_the_commands_say_what_was_refused(refusing: Service, tmp_path: Path) -> None:
    from monitor.cli import app

    refusing.close()
    config = tmp_path / "telltale.yaml"
    config.write_text("{store: {path: data}, models: {m: {}}, unknown_models: reject}\n")
    named = ["--config", str(config)]
    listed = CliRunner().invoke(app, ["dead-letters", "list", *named])
    assert (listed.exit_code, "unknown_m" in listed.output, "50" in listed.output) == (0, True, True)
    shown = CliRunner().invoke(app, ["dead-letters", "show", *named, "--reason", "not_utf8"])
    assert (shown.exit_code, "the line is not UTF-8" in shown.output) == (0, True)
    replayed = CliRunner().invoke(app, ["dead-letters", "replay", *named])
    assert replayed.output.splitlines()[-1] == "50 lines taken in, 1 still refused"


def test_only_logs_are_stopped_at(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service(
        sources={"kafka": {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["t"], "dead_letters": {"in_a_row": 3}}}
    )
    assert len(service.take(b"x\n" * 10, "http").rejects) == 10
    with pytest.raises(TooManyDeadLettersError):
        service.take_batch([b"x"] * 10, Origin(LOG, "0", NOON, None, 9))


def test_blank_lines_neither_end_a_row_of_refused_lines_nor_count(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = NOON
    limits = {"in_a_row": 500, "share": 0.5}
    kafka = {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["t"], "dead_letters": limits}
    service = make_service(sources={"kafka": kafka})
    with pytest.raises(TooManyDeadLettersError, match="600 lines in a row"):
        service.take_batch([b"garbage", b"", b" \t"] * 600, Origin(LOG, "0", NOON, None, 1799))
    good = ndjson([prediction(1, NOON - HOUR)])
    with pytest.raises(TooManyDeadLettersError, match="67% of the last 450 lines"):
        service.take_batch([b"garbage", b"", b"garbage", b"", good] * 150, Origin(LOG, "0", NOON, None, 749))
    assert rows(service) == (0, 0)


def test_a_fault_of_ours_in_every_line_stops_the_log_too(
    make_service: ServiceMaker, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.at = NOON
    kafka = {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["t"], "dead_letters": {"in_a_row": 20}}
    service = make_service(models={"m": {}}, sources={"kafka": kafka})

    def broken(_: object) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("monitor.ingest.profile_rows", broken)
    lines = [ndjson([prediction(n, NOON - HOUR)]) for n in range(30)]
    with pytest.raises(TooManyDeadLettersError, match="30 lines in a row"):
        service.take_batch(lines, Origin(LOG, "0", NOON, None, 29))
    assert service.status()["rows"]["dead_letters"] == 0


def test_a_log_that_is_read_elsewhere_by_now_is_not_stopped_at_here(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    from monitor.intake import Progress
    from monitor.sources import Place

    clock.at = NOON
    kafka = {"bootstrap_servers": ["127.0.0.1:1"], "topics": ["t"], "dead_letters": {"in_a_row": 3}}
    service = make_service(sources={"kafka": kafka})
    with pytest.raises(TooManyDeadLettersError):
        service.take_batch([b"x"] * 10, Origin(LOG, "0", NOON, None, 9))
    service.report_progress([Progress(Place("t", 0), "x", NOON), Progress(Place("t", 10), "x", NOON)])
    with pytest.raises(TooManyDeadLettersError):
        service.check()
    service.report_progress([Progress(Place("t", 10), "x", NOON)])
    service.check()
    assert service.metrics.registry.get_sample_value("telltale_stopped_logs") == 0


def test_what_a_key_was_not_allowed_to_write_is_never_replayed(make_service: ServiceMaker, clock: StillClock) -> None:
    clock.at = NOON
    service = make_service(models={"a": {}, "m": {}}, unknown_models="reject")
    events = [prediction(n, NOON - HOUR, model="mz"[n % 2]) for n in range(10)]
    receipt = service.take(ndjson(events), "http", models=frozenset({"a"}))
    assert {r.reason for r in receipt.rejects} == {"forbidden_model"}
    service = make_service(models={"a": {}, "m": {}, "z": {}}, unknown_models="reject")
    assert service.replay_dead_letters() == {"taken": 0, "left": 10}


def test_a_batch_that_comes_again_under_other_rules_has_no_letters_to_replay(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = NOON
    body = ndjson([prediction(n, NOON - HOUR) for n in range(20)])
    make_service(models={"z": {}}, unknown_models="reject").take(body, "http", key="k")
    service = make_service(models={"m": {}}, unknown_models="reject")
    assert service.take(body, "http", key="k").accepted == 20
    assert service.dead_letter_groups() == []
    assert service.replay_dead_letters() == {"taken": 0, "left": 0}
    assert rows(service) == (20, 20)
    assert service.audit(NOON - 3 * HOUR, NOON + HOUR, repair=False)["disagreements"] == []


@pytest.mark.parametrize("how", ["sent again", "amended", "taken in again"])
def test_what_was_replayed_goes_when_its_batch_is_taken_in_again(
    make_service: ServiceMaker, clock: StillClock, how: str
) -> None:
    clock.at = NOON
    lines = [ndjson([prediction(n, NOON - HOUR, model="m" if n % 2 else "new")]) for n in range(20)]
    origin = Origin(LOG, "0", NOON, [NOON.timestamp()] * 20, 19)
    make_service(models={"m": {}}, unknown_models="reject").take_batch(lines, origin)
    service = make_service(models={"m": {}, "new": {}}, unknown_models="reject")
    assert service.replay_dead_letters() == {"taken": 10, "left": 0}
    if how == "sent again":
        service.take_batch(lines, origin)
    elif how == "amended":
        service.forget_batch(origin)
        assert rows(service) == (0, 0)
        service.take_batch(lines, origin)
    else:
        service.ingest.retake(lines, origin)
    assert rows(service) == (20, 20)
    assert service.replay_dead_letters() == {"taken": 0, "left": 0}
    assert service.audit(NOON - 3 * HOUR, NOON + HOUR, repair=False)["disagreements"] == []


def test_a_replay_that_another_process_knew_nothing_of_is_found_and_undone(
    make_service: ServiceMaker, clock: StillClock
) -> None:
    clock.at = NOON
    body = ndjson([prediction(n, NOON - HOUR, model="m" if n % 2 else "new") for n in range(20)])
    make_service(models={"m": {}}, unknown_models="reject").take(body, "http", key="k")
    service = make_service(models={"m": {}, "new": {}}, unknown_models="reject")
    service.replay_dead_letters()
    service.ingest._replayed.clear()  # noqa: SLF001 - as it is in a process that has not looked since
    service.take(body, "http", key="k")
    assert rows(service)[1] == 30
    found = service.audit(NOON - 3 * HOUR, NOON + HOUR, repair=True)["disagreements"]
    assert [(d["what"], d["expected"], d["found"]) for d in found] == [("dead letters taken in twice", 0, 10)]
    assert rows(service) == (20, 20)
    assert service.audit(NOON - 3 * HOUR, NOON + HOUR, repair=True)["disagreements"] == []
    service = make_service(models={"m": {}}, unknown_models="reject")
    service.forget_batch(Origin("http", found[0]["batch"], NOON))
    service.take(body, "http", key="k")  # by the old rules again: they are dead letters again
    service = make_service(models={"m": {}, "new": {}}, unknown_models="reject")
    assert service.replay_dead_letters() == {"taken": 10, "left": 0}
    assert rows(service) == (20, 20)
