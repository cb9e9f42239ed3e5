"""Batches that could not be sent wait on disk and are sent later, by whichever process comes, and count once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faulty import Gateway, Telltale, gateway_to
from processes import free_port, wait_until

from telltale_client import Logger
from telltale_client.batches import Batch
from telltale_client.spill import Spill

MakeLogger = Callable[..., Logger]


def nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"


def test_the_next_process_sends_what_the_last_one_could_not(
    telltale: Telltale, make_logger: MakeLogger, tmp_path: Path
) -> None:
    folder = tmp_path / "spill"
    port = free_port()
    first = Logger("m", "1", server="pod-1", url=f"http://127.0.0.1:{port}", spill=folder)
    ids = {first.predict({"x": float(n)}, "yes") for n in range(30)}
    first.close(5)
    assert (first.stats().dropped, first.stats().spilled) == (0, 1)
    second = make_logger(url=f"http://127.0.0.1:{port}", spill=folder)
    with gateway_to(telltale.url, port):
        ids.add(second.predict({"x": 1.0}, "yes"))
        wait_until(lambda: second.stats().delivered == 31, "the spilled batch to be sent", 10)
    assert {r["prediction_id"] for r in telltale.select("SELECT prediction_id FROM predictions FINAL")} == ids
    assert second.stats().spilled == 0


def test_a_batch_that_arrived_unnoticed_and_was_spilled_counts_once(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, tmp_path: Path
) -> None:
    gateway.faults.append("reset")
    logger = make_logger(url=gateway.url, spill=tmp_path)
    logger.predict({"x": 1.0}, "yes")
    assert logger.flush()
    assert telltale.rows() == 1
    wait_until(lambda: logger.stats().delivered == 1, "the spilled batch to be sent", 10)
    assert len(gateway.keys) == 2
    assert len(set(gateway.keys)) == 1
    assert telltale.rows() == 1
    assert logger.stats().spilled == 0


def test_while_nobody_answers_the_disk_takes_more_than_memory_holds(
    telltale: Telltale, make_logger: MakeLogger, tmp_path: Path
) -> None:
    port = free_port()
    logger = make_logger(url=f"http://127.0.0.1:{port}", spill=tmp_path, capacity=20)
    for round_number in range(10):
        for n in range(15):
            logger.predict({"x": float(n)}, "yes")
        wait_until(lambda: len(logger._shipper._queue) < 5 if logger._shipper else False, f"round {round_number}", 20)  # noqa: SLF001 - it is told nowhere else
    assert logger.stats().dropped == 0
    with gateway_to(telltale.url, port):
        wait_until(lambda: logger.stats().delivered == 150, "all to arrive", 20)
    assert telltale.rows() == 150
    assert logger.stats().spilled == 0


def test_the_disk_holds_no_more_than_allowed_and_what_has_no_room_is_counted(tmp_path: Path) -> None:
    logger = Logger("m", "1", server="pod-1", url=nobody(), spill=tmp_path, spill_bytes=250_000)
    for _ in range(3000):
        logger.predict({"x": 1.0}, "yes")
    logger.close(0.5)
    stats, files = logger.stats(), list(tmp_path.iterdir())
    assert 0 < sum(f.stat().st_size for f in files) <= 250_000
    lines = sum(len(f.read_bytes().split(b"\n")) for f in files)
    assert (lines + stats.dropped, stats.waiting) == (3000, 0)
    assert 0 < lines < 3000


def test_a_refused_batch_leaves_the_disk(gateway: Gateway, make_logger: MakeLogger, tmp_path: Path) -> None:
    Spill(tmp_path, 1000, f"{gateway.url}/v1/events None m").put(Batch((b"{}", b"{}")))
    gateway.faults.extend([None, 400])
    logger = make_logger(url=gateway.url, spill=tmp_path)
    assert logger.stats().spilled == 1
    logger.predict({"x": 1.0}, "yes")
    wait_until(lambda: logger.stats().spilled == 0, "the batch to be gone", 10)
    assert logger.flush()


def test_two_processes_do_not_send_the_same_file(tmp_path: Path) -> None:
    one, other = Spill(tmp_path, 1000), Spill(tmp_path, 1000)
    assert one.put(Batch((b"a", b"b"), "k1"))
    assert one.put(Batch((b"c",), "k2"))
    first, second = one.take(), other.take()
    assert first is not None
    assert second is not None
    assert (first.key, first.lines, second.key) == ("k1", (b"a", b"b"), "k2")
    assert Spill(tmp_path, 1000).take() is None
    one.remove()
    other.put_back()
    third = one.take()
    assert third is not None
    assert third.key == "k2"
    one.put_back()


def test_only_the_owner_may_read_what_is_spilled_and_half_a_file_is_never_sent(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "new", 1000)
    spill.put(Batch((b"a",)))
    (file,) = (tmp_path / "new").iterdir()
    assert (file.stat().st_mode & 0o077, (tmp_path / "new").stat().st_mode & 0o077) == (0, 0)
    half = tmp_path / "new" / file.with_name(file.name.replace(".ndjson", "0.part")).name
    half.write_bytes(b"x" * 900)
    assert not spill.put(Batch((b"b" * 200,)))
    os.utime(half, (1, 1))
    assert spill.put(Batch((b"b" * 200,)))
    assert not half.exists()


def test_a_report_of_lost_events_is_no_event_of_the_pod_on_disk_either(
    telltale: Telltale, make_logger: MakeLogger, tmp_path: Path
) -> None:
    port = free_port()
    first = Logger("m", "1", server="pod-1", url=f"http://127.0.0.1:{port}", spill=tmp_path, capacity=3)
    for _ in range(20):
        first.predict({"x": 1.0, "telltale_dropped": 5.0}, "yes")
    first.close(0.5)
    lost = first.stats().dropped
    with gateway_to(telltale.url, port):
        second = make_logger(url=f"http://127.0.0.1:{port}", spill=tmp_path)
        second.predict({"x": 1.0}, "yes")
        wait_until(lambda: second.stats().spilled == 0 and telltale.rows("health"), "the report", 20)
        assert second.flush()
        wait_until(lambda: second.stats().delivered == telltale.rows(), "the counts", 10)
    assert telltale.rows() == 20 - lost + 1
    told = telltale.select("SELECT sum(arraySum(resource_values)) AS n FROM health FINAL")
    assert told == [{"n": float(lost)}]


def test_files_of_others_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    names = ("export.ndjson", "1-a.ndjson", "download.part", "x.ndjson.part")
    for name in names:
        (tmp_path / name).write_bytes(b"x" * 5000)
        os.utime(tmp_path / name, (1, 1))
    spill = Spill(tmp_path, 1000)
    assert (spill.take(), spill.count()) == (None, 0)
    assert spill.put(Batch((b"a",)))
    assert all((tmp_path / name).exists() for name in names)
    taken = spill.take()
    assert taken is not None
    assert taken.lines == (b"a",)
    spill.put_back()


def test_loggers_that_share_a_folder_send_only_what_is_theirs(
    telltale: Telltale, make_logger: MakeLogger, tmp_path: Path
) -> None:
    port = free_port()
    told: dict[str, Any] = {"server": "pod-1", "url": f"http://127.0.0.1:{port}", "spill": tmp_path}
    for model, environment in (("m", None), ("other", None), ("m", "staging")):
        logger = Logger(model, "1", environment=environment, **told)
        logger.predict({"x": 1.0}, "yes")
        logger.close(0.2)
    elsewhere = make_logger(url=telltale.url, spill=tmp_path)
    assert elsewhere.stats().spilled == 0
    with gateway_to(telltale.url, port):
        logger = make_logger(url=f"http://127.0.0.1:{port}", spill=tmp_path, key="another one")
        assert logger.stats().spilled == 1
        logger.predict({"x": 1.0}, "yes")
        wait_until(lambda: logger.stats().delivered == 2, "the spilled batch to be sent", 10)
    assert len(list(tmp_path.glob("*.ndjson"))) == 2
    assert telltale.select("SELECT DISTINCT model, environment FROM predictions") == [
        {"model": "m", "environment": "production"}
    ]


def test_a_disk_that_takes_nothing_leaves_events_in_memory(
    telltale: Telltale, gateway: Gateway, make_logger: MakeLogger, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    gateway.faults.append(503)
    logger = make_logger(url=gateway.url, spill=tmp_path / "file" / "folder")
    logger.predict({"x": 1.0}, "yes")
    assert logger.flush()
    assert telltale.rows() == 1
