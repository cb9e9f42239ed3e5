"""A real Apache Kafka broker on loopback: one node, a temporary folder, ports of its own."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import itertools
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from processes import Process, free_port, listens, unavailable, wait_until

ROOT = Path(__file__).parents[2]
POM = Path(__file__).parent / "kafka" / "pom.xml"
JARS = ROOT / ".cache" / "kafka"
USER, PASSWORD = "telltale", "only-for-tests"
_names = itertools.count()


class Broker:
    """A broker, its topics, and what is in them."""

    def __init__(self, bootstrap: str, node: Node | None = None) -> None:
        self.bootstrap = bootstrap
        self._node = node

    @property
    def node(self) -> Node:
        """The process, where it is ours to kill."""
        if self._node is None:
            pytest.skip("the broker in KAFKA_BOOTSTRAP_SERVERS is not ours to restart")
        return self._node

    def topic(self, partitions: int = 4, **settings: str) -> str:
        """A new topic, known to the broker when this returns."""
        name = f"t-{os.getpid()}-{next(_names)}"
        self.create(name, partitions, **settings)
        return name

    def create(self, name: str, partitions: int, **settings: str) -> None:
        from kafka.admin import NewTopic

        config = {k.replace("_", "."): v for k, v in settings.items()}
        with self._admin() as admin:
            admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
            wait_until(lambda: name in admin.list_topics(), f"topic {name}")

    @contextlib.contextmanager
    def _admin(self) -> Iterator[Any]:
        from kafka import KafkaAdminClient

        with contextlib.closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as admin:
            yield admin

    def topics(self) -> list[str]:
        with self._admin() as admin:
            return list(admin.list_topics())

    def delete(self, name: str) -> None:
        with self._admin() as admin:
            admin.delete_topics([name])
            wait_until(lambda: name not in admin.list_topics(), f"topic {name} to be gone")

    def add_partitions(self, name: str, partitions: int) -> None:
        from kafka.admin import NewPartitions

        with self._admin() as admin:
            admin.create_partitions({name: NewPartitions(partitions)})

    def delete_before(self, offsets: dict[Any, int]) -> None:
        with self._admin() as admin:
            admin.delete_records(offsets)

    def produce(self, topic: str, messages: Iterable[dict[str, Any]], **settings: Any) -> int:
        """Send messages (what KafkaProducer.send takes) and wait until the broker has them. How many."""
        from kafka import KafkaProducer

        settings = {"linger_ms": 20, "acks": "all", **settings}
        with contextlib.closing(KafkaProducer(bootstrap_servers=self.bootstrap, **settings)) as producer:
            sent = [producer.send(topic, **message) for message in messages]
            producer.flush()
            for future in sent:
                future.get(timeout=30)
        return len(sent)


class Node:
    """The broker's process. Its folder outlives it, so it can be started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.secure_port, controller = free_port(), free_port(), free_port()
        self.ca_file = _certificate(folder)
        self._properties = folder / "server.properties"
        self._properties.write_text(_settings(folder, self.port, self.secure_port, controller))
        self._process: Process | None = None
        cluster = base64.urlsafe_b64encode(b"t" + uuid.uuid4().bytes[1:]).decode().rstrip("=")  # never begins with "-"
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties)]
        subprocess.run([*self._java(), *tool], check=True, capture_output=True)

    def start(self) -> None:
        command = [*self._java("-Xms256m", "-Xmx512m"), "kafka.Kafka", str(self._properties)]
        self._process = Process(command, self.folder / "broker.log")
        self._process.wait_until(lambda: listens(self.port) and listens(self.secure_port), "the broker")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    @staticmethod
    def _java(*options: str) -> list[str]:
        return ["java", *options, "-cp", f"{_jars()}/*"]


def _settings(folder: Path, port: int, secure_port: int, controller: int) -> str:
    settings: dict[str, str | int] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "log.dirs": str(folder / "logs"),
        "log.retention.ms": -1,  # messages that are dated long ago would go while they are read
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "log.cleaner.dedupe.buffer.size": 2097152,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _certificate(folder: Path) -> Path:
    """A key and certificate for 127.0.0.1 as the broker wants them; the certificate is its own authority."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "broker.pem").write_text(key.read_text() + certificate.read_text())
    return certificate


def _jars() -> Path:
    """The folder with the broker's jars, filled by Maven once. Skips where that can't be."""
    JARS.mkdir(parents=True, exist_ok=True)
    done = JARS / f"complete-{POM.stat().st_size}"
    with (JARS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            copy = ["mvn", "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={JARS}"]
            made = subprocess.run(copy, capture_output=True, text=True, check=False)
            if made.returncode:
                unavailable(f"Maven could not bring the broker's jars: {made.stdout[-500:]}")
            done.touch()
    return JARS


def missing_tools(tools: Sequence[str] = ("java", "mvn", "openssl")) -> list[str]:
    return [tool for tool in tools if shutil.which(tool) is None]


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The broker in KAFKA_BOOTSTRAP_SERVERS, or one that is started for the tests of this process."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield Broker(given)
        return
    if missing := missing_tools():
        unavailable(f"no Kafka broker without {' and '.join(missing)}; or set KAFKA_BOOTSTRAP_SERVERS")
    node = Node(tmp_path_factory.mktemp("kafka"))
    node.start()
    try:
        yield Broker(f"127.0.0.1:{node.port}", node)
    finally:
        node.kill()
