"""Looking into and killing the embedded servers of a test."""

import json
import signal
from pathlib import Path

import psutil
import psycopg
import redis

from recovery_site.embedded import (
    ServiceUrls,
)
from recovery_site.embedded.processes import ServerProcess, wait_until_gone


def recorded(data_dir: Path, server: str) -> ServerProcess:
    process = json.loads((data_dir / "services.json").read_text())[server]["process"]
    return ServerProcess(pid=process["pid"], started=process["started"])


def recorded_processes(data_dir: Path) -> list[object]:
    content = json.loads((data_dir / "services.json").read_text())
    return [content["postgres"]["process"], content["redis"]["process"]]


def query(urls: ServiceUrls, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(urls.database_url, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def redis_of(urls: ServiceUrls) -> redis.Redis:
    return redis.Redis.from_url(urls.redis_url, socket_timeout=5, decode_responses=True)


def kill_hard(*processes: ServerProcess) -> None:
    handles = [psutil.Process(process.pid) for process in processes]
    for handle in handles:
        handle.send_signal(signal.SIGKILL)
    assert all(wait_until_gone(handle, timeout_seconds=10) for handle in handles)
