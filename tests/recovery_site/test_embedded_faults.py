"""The embedded services after kill -9, recycled pids, taken ports, lost, broken and copied files."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from recovery_site.embedded import (
    EmbeddedServiceError,
    ensure_services,
    location,
    manager,
    stop_services,
)
from recovery_site.embedded.processes import run_as, service_account
from tests.recovery_site.embedded_servers import kill_hard, query, recorded, redis_of


def test_committed_rows_survive_kill_9_of_both_servers(data_dir: Path) -> None:
    before = ensure_services(data_dir)
    query(before, "CREATE TABLE kept AS SELECT 42 AS value")
    busy = psycopg.connect(before.database_url, autocommit=True)
    busy.execute("BEGIN")  # an orphaned backend: it outlives its postmaster until it notices
    kill_hard(recorded(data_dir, "postgres"), recorded(data_dir, "redis"))

    after = ensure_services(data_dir)

    assert after == before
    assert query(after, "SELECT value FROM kept") == [(42,)]
    assert redis_of(after).ping() is True
    assert "was not properly shut down" in (data_dir / "postgres.log").read_text()
    busy.close()


def test_one_dead_server_is_replaced_and_the_other_left_alone(data_dir: Path) -> None:
    ensure_services(data_dir)
    postgres, cache = recorded(data_dir, "postgres"), recorded(data_dir, "redis")
    kill_hard(cache)

    assert redis_of(ensure_services(data_dir)).ping() is True
    assert recorded(data_dir, "postgres") == postgres
    assert recorded(data_dir, "redis") != cache


def test_pid_file_that_names_a_recycled_pid_does_not_stop_the_start(data_dir: Path) -> None:
    urls = ensure_services(data_dir)
    stop_services(data_dir)
    account = service_account(data_dir / "postgres")
    stranger = subprocess.Popen(["sleep", "600"], user=account.uid, start_new_session=True)
    try:
        pid_file = data_dir / "postgres" / "postmaster.pid"
        pid_file.write_text(f"{stranger.pid}\n{data_dir / 'postgres'}\n0\n5432\n\n127.0.0.1\n0 0\nready\n")
        account.own(pid_file)
        # PostgreSQL by itself takes the stranger for a live postmaster and refuses:
        programs = location.find_programs(data_dir, account)
        refused = run_as(account, [str(programs.postgres_bin / "postgres"), "-D", "."], cwd=data_dir / "postgres")
        assert 'lock file "postmaster.pid" already exists' in refused.stdout

        assert ensure_services(data_dir) == urls
        assert query(urls, "SELECT 1") == [(1,)]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_recorded_pids_that_now_mean_other_processes_are_not_believed(data_dir: Path) -> None:
    urls = ensure_services(data_dir)
    stop_services(data_dir)
    content = json.loads((data_dir / "services.json").read_text())
    for server in ("postgres", "redis"):
        content[server]["process"] = {"pid": os.getpid(), "started": 1.0}
    (data_dir / "services.json").write_text(json.dumps(content))

    assert ensure_services(data_dir) == urls
    assert recorded(data_dir, "postgres").pid != os.getpid()
    stop_services(data_dir)  # and the stop ends the servers, not us


def test_ports_taken_by_somebody_else_are_left_to_them(data_dir: Path) -> None:
    before = ensure_services(data_dir)
    stop_services(data_dir)
    content = json.loads((data_dir / "services.json").read_text())
    ports = {content["postgres"]["port"], content["redis"]["port"]}
    thieves = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        after = ensure_services(data_dir)
    finally:
        for thief in thieves:
            thief.close()

    assert query(after, "SELECT 1") == [(1,)]
    assert redis_of(after).ping() is True
    assert after.database_url != before.database_url
    assert after.redis_url != before.redis_url


def test_stranger_that_answers_on_a_recorded_port_is_not_taken_for_our_server(data_dir: Path) -> None:
    ensure_services(data_dir)
    postgres = recorded(data_dir, "postgres")
    with tempfile.TemporaryDirectory() as other:
        Path(other).chmod(0o711)
        stranger = Path(other) / ".data"
        try:
            ensure_services(stranger)
            content = json.loads((data_dir / "services.json").read_text())
            content["redis"] = json.loads((stranger / "services.json").read_text())["redis"]
            (data_dir / "services.json").write_text(json.dumps(content))

            # A live Redis, a live process with the right birth time, but not our password.
            urls = ensure_services(data_dir)

            assert redis_of(urls).ping() is True
            assert recorded(data_dir, "redis") != recorded(stranger, "redis")
            assert recorded(data_dir, "postgres") == postgres
        finally:
            manager.remove_services(stranger)


def test_lost_or_broken_record_finds_the_running_database_again(data_dir: Path) -> None:
    before = ensure_services(data_dir)
    postmaster = recorded(data_dir, "postgres")
    for content in (None, "", "{", "[]", '{"data_root": "/"}'):
        (data_dir / "services.json").unlink()
        if content is not None:
            (data_dir / "services.json").write_text(content)

        after = ensure_services(data_dir)

        assert after.database_url == before.database_url
        assert recorded(data_dir, "postgres") == postmaster
        assert redis_of(after).ping() is True


def test_copied_checkout_gets_servers_of_its_own(data_dir: Path) -> None:
    here = ensure_services(data_dir)
    query(here, "CREATE TABLE before_the_copy ()")
    stop_services(data_dir)
    copy = data_dir.parent / "copy" / ".data"
    copy.parent.mkdir(mode=0o711)
    subprocess.run(["cp", "-a", str(data_dir), str(copy)], check=True)
    assert ensure_services(data_dir) == here
    try:
        there = ensure_services(copy)

        assert there.database_url != here.database_url
        assert there.redis_url != here.redis_url
        query(there, "CREATE TABLE only_there ()")
        tables = "SELECT to_regclass('before_the_copy'), to_regclass('only_there')"
        assert query(there, tables) == [("before_the_copy", "only_there")]
        assert query(here, tables) == [("before_the_copy", None)]
    finally:
        manager.remove_services(copy)


def test_moved_checkout_keeps_its_running_database(data_dir: Path) -> None:
    before = ensure_services(data_dir)
    postmaster = recorded(data_dir, "postgres")
    moved = data_dir.with_name("moved")
    data_dir.rename(moved)
    try:
        assert ensure_services(moved).database_url == before.database_url
        assert recorded(moved, "postgres") == postmaster
    finally:
        manager.remove_services(moved)


def test_interrupted_first_start_leaves_nothing_to_trip_over(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o711)
    (data_dir / "postgres.part").mkdir()
    (data_dir / "postgres.part" / "PG_VERSION").write_text("18\n")

    assert query(ensure_services(data_dir), "SELECT 1") == [(1,)]
    assert not (data_dir / "postgres.part").exists()


def test_servers_whose_data_was_deleted_are_replaced(data_dir: Path) -> None:
    ensure_services(data_dir)
    old = [recorded(data_dir, "postgres"), recorded(data_dir, "redis")]
    shutil.rmtree(data_dir)

    urls = ensure_services(data_dir)

    assert query(urls, "SELECT 1") == [(1,)]
    assert redis_of(urls).ping() is True
    assert [server.handle() for server in old] == [None, None]


def test_data_of_another_major_version_is_named_and_kept(data_dir: Path) -> None:
    ensure_services(data_dir)
    stop_services(data_dir)
    (data_dir / "postgres" / "PG_VERSION").write_text("17\n")

    with pytest.raises(EmbeddedServiceError, match=r"made by PostgreSQL 17, this checkout runs 18\. Run `make clean`"):
        ensure_services(data_dir)
    assert (data_dir / "postgres" / "base").is_dir()
    (data_dir / "postgres" / "PG_VERSION").write_text("18\n")


def test_failing_start_shows_the_end_of_the_log(data_dir: Path) -> None:
    ensure_services(data_dir)
    stop_services(data_dir)
    (data_dir / "postgres" / "postgresql.conf").open("a").write("no_such_setting = 1\n")

    with pytest.raises(EmbeddedServiceError, match=r"(?s)did not start\. Fix what .*no_such_setting"):
        ensure_services(data_dir)


def test_unusable_data_directory_ends_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedServiceError, match=r"cannot be run: .*set DATABASE_URL and REDIS_URL to servers"):
        ensure_services(tmp_path / "file" / ".data")
