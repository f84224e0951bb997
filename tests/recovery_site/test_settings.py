"""The settings in each environment, and `.env.example`, which tells the truth about them."""

import ast
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core.cache import caches
from django.db import connection
from redis import Redis

from recovery_site.common.clock import ClockAnchor
from tests.recovery_site.settings_loader import CHECKOUT, NOWHERE, PRODUCTION, Loader, run

APPS = [
    "recovery_site", "accounts", "providers", "invoices", "tokens", "retries", "notifications", "webhooks",
    "analytics",
]  # fmt: skip
# Read outside settings.py, or set by tools: none of them is for an operator to set.
NOT_SETTINGS = {"DJANGO_SETTINGS_MODULE", "PYTEST_VERSION", "PYTEST_XDIST_WORKER", "Q_CLUSTER_NAME"}


def test_production_settings_are_safe(production: dict[str, Any]) -> None:
    assert production["DEBUG"] is False
    assert production["SECRET_KEY"] == PRODUCTION["SECRET_KEY"]
    assert production["FIELD_ENCRYPTION_KEYS"] == PRODUCTION["FIELD_ENCRYPTION_KEYS"].split(",")
    assert production["ALLOWED_HOSTS"] == ["recovery.example.com", ".example.org"]
    assert production["CSRF_TRUSTED_ORIGINS"] == ["https://recovery.example.com"]
    assert production["SECURE_HSTS_SECONDS"] == 31_536_000
    flags = (
        "SECURE_SSL_REDIRECT",
        "SECURE_HSTS_INCLUDE_SUBDOMAINS",
        "SESSION_COOKIE_SECURE",
        "CSRF_COOKIE_SECURE",
    )
    assert [production[flag] for flag in flags] == [True] * 4
    assert "SECURE_PROXY_SSL_HEADER" not in production
    assert production["PASSWORD_HASHERS"][0] == "django.contrib.auth.hashers.Argon2PasswordHasher"
    assert production["STORAGES"]["staticfiles"]["BACKEND"].endswith("CompressedManifestStaticFilesStorage")
    assert (production["EMAIL_HOST"], production["EMAIL_PORT"], production["EMAIL_USE_TLS"]) == (
        "mail.example.com", 587, True,
    )  # fmt: skip
    assert (production["EMAIL_HOST_USER"], production["EMAIL_HOST_PASSWORD"]) == ("user", "p@ss")
    assert production["EMBEDDED_SERVICES"] is False


@pytest.mark.parametrize("environment", ["production", "development"])
def test_browser_may_load_and_run_only_our_own_files(
    environment: str, production: dict[str, Any], development: dict[str, Any]
) -> None:
    loaded = {"production": production, "development": development}[environment]
    directives = loaded["CONTENT_SECURITY_POLICY"]["DIRECTIVES"]
    assert {source for sources in directives.values() for source in sources} == {"'self'", "'none'"}
    assert directives["default-src"] == directives["script-src"] == directives["style-src"] == ["'self'"]
    assert directives["frame-ancestors"] == directives["object-src"] == directives["base-uri"] == ["'none'"]


def test_proxy_header_is_believed_only_when_told_so(loader: Loader) -> None:
    loaded = loader.load({**PRODUCTION, "BEHIND_TLS_PROXY": "yes"})
    assert loaded["SECURE_PROXY_SSL_HEADER"] == ["HTTP_X_FORWARDED_PROTO", "https"]
    assert loaded["AXES_IPWARE_PROXY_COUNT"] == 1


def test_production_passes_the_deployment_check() -> None:
    done = run(["manage.py", "check", "--deploy", "--fail-level", "WARNING"], PRODUCTION)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "System check identified no issues (0 silenced).\n"


def test_defaults_are_those_of_the_design(development: dict[str, Any]) -> None:
    expected = {
        "RETRY_PROCESSING_INTERVAL": "0:00:30",
        "RETRY_LOCK_TIMEOUT": "0:05:00",
        "RETRY_MAX_ATTEMPTS": 3,
        "RECONCILE_WORKER_ENABLED": True,
        "RECONCILE_INTERVAL": "1:00:00",
        "RECONCILE_ORDER_STUCK_AFTER": "0:30:00",
        "RECONCILE_REFUND_STUCK_AFTER": "0:30:00",
        "RECONCILE_REFUND_ORPHAN_AFTER": "0:05:00",
        "WEBHOOK_MAX_BODY_BYTES": 1_048_576,
        "WEBHOOK_TOLERANCE_SECONDS": 300,
        "CLOCK_SPEED": 1,
        "CLOCK_ANCHOR": None,
        "USE_TZ": True,
        "TIME_ZONE": "UTC",
    }
    assert {name: development[name] for name in expected} == expected
    cluster = development["Q_CLUSTER"]
    assert development["DATABASES"]["default"]["CONN_MAX_AGE"] == 60
    assert cluster["bulk"] == cluster["queue_limit"] == 2 * cluster["workers"]
    assert (cluster["save_limit"], cluster["max_attempts"], cluster["orm"]) == (-1, 1, "default")
    assert (cluster["ack_failures"], cluster["catch_up"]) == (True, False)
    assert list(cluster["ALT_CLUSTERS"]) == ["inbox"]


def test_bare_retry_numbers_are_milliseconds(loader: Loader) -> None:
    loaded = loader.load({**NOWHERE, "RETRY_PROCESSING_INTERVAL": "1500", "RETRY_LOCK_TIMEOUT": "10s"})
    assert loaded["RETRY_PROCESSING_INTERVAL"] == "0:00:01.500000"
    assert loaded["RETRY_LOCK_TIMEOUT"] == "0:00:10"


def test_clock_anchor_is_two_instants(loader: Loader) -> None:
    loaded = loader.load(
        {**NOWHERE, "CLOCK_SPEED": "60", "CLOCK_ANCHOR": "2026-01-31T12:00:00Z/2026-01-01T01:00:00+01:00"}
    )
    real, virtual = datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    assert loaded["CLOCK_ANCHOR"] == str(ClockAnchor(real=real, virtual=virtual))
    assert loaded["CLOCK_SPEED"] == 60


def test_development_files_its_mail_instead_of_printing_it(development: dict[str, Any]) -> None:
    assert development["EMAIL_BACKEND"] == "django.core.mail.backends.filebased.EmailBackend"
    assert development["EMAIL_FILE_PATH"] == str(CHECKOUT / ".data" / "mail")


def test_values_are_taken_as_they_are_even_with_a_dollar(loader: Loader) -> None:
    loaded = loader.load({**PRODUCTION, "SECRET_KEY": "$PATH-and-more-than-fifty-characters-abcdefghijklmnopq"})
    assert loaded["SECRET_KEY"] == "$PATH-and-more-than-fifty-characters-abcdefghijklmnopq"
    loaded = loader.load({**NOWHERE, "DATABASE_URL": "postgresql://me:%24a%2Fb%3Fc%23d%40e@db.example.com:6543/ledger"})
    address = loaded["DATABASES"]["default"]
    assert [address[key] for key in ("USER", "PASSWORD", "HOST", "PORT", "NAME")] == [
        "me", "$a/b?c#d@e", "db.example.com", 6543, "ledger",
    ]  # fmt: skip


def test_development_makes_its_own_secrets_once(loader: Loader, development: dict[str, Any]) -> None:
    assert len(development["SECRET_KEY"]) >= 44
    cipher = Fernet(development["FIELD_ENCRYPTION_KEYS"][0])
    assert cipher.decrypt(cipher.encrypt(b"secret")) == b"secret"
    again = loader.load(NOWHERE)
    assert again["SECRET_KEY"] == development["SECRET_KEY"]
    assert again["FIELD_ENCRYPTION_KEYS"] == development["FIELD_ENCRYPTION_KEYS"]
    assert development["SECRET_KEY"] not in development["FIELD_ENCRYPTION_KEYS"]


def test_commands_that_need_no_database_start_none() -> None:
    for arguments in (["collectstatic", "--help"], ["migrate", "--help"], ["version"], ["help"]):
        done = run(["manage.py", *arguments], {"DATABASE_URL": NOWHERE["DATABASE_URL"], "ENVIRONMENT": "development"})
        assert done.returncode == 0, done.stderr
    program = "import sys; sys.argv = ['manage.py', 'collectstatic']; from django.conf import settings; "
    done = run(["-c", program + "print(settings.DATABASES['default']['NAME'])"], {})
    assert done.stdout == "embedded-postgresql-not-started\n"


def test_services_command_repeats_addresses_that_are_set() -> None:
    done = run(["manage.py", "services", "--json"], NOWHERE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == NOWHERE


def test_services_command_tells_the_addresses_of_the_embedded_ones() -> None:
    done = run(["manage.py", "services", "--json"], {})
    assert done.returncode == 0, done.stderr
    addresses = json.loads(done.stdout)
    assert list(addresses) == ["DATABASE_URL", "REDIS_URL"]
    assert Redis.from_url(addresses["REDIS_URL"]).ping() is True


def test_production_log_lines_are_json_on_stderr_without_card_numbers() -> None:
    program = (
        "import django; django.setup(); import logging, structlog\n"
        "number = '4242424242424242'\n"
        "structlog.get_logger('a.b').info('charge', card={'number': number}, note=f'x {number}')\n"
        "try:\n    raise ValueError('declined 4242424242424242')\n"
        "except ValueError:\n    logging.getLogger('c').exception('failed %s', '4242 4242 4242 4242')\n"
    )
    done = run(["-c", program], PRODUCTION)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    first, second = [json.loads(line) for line in done.stderr.splitlines()]
    assert (first["event"], first["level"], first["logger"]) == ("charge", "info", "a.b")
    assert (first["card"], first["note"]) == ({"number": "[filtered]"}, "x [filtered]")
    assert second["event"] == "failed [filtered]"
    assert second["exception"].endswith("ValueError: declined [filtered]")
    assert "4242" not in done.stderr


def documented() -> dict[str, str | None]:
    """Names in .env.example with their value, None where the line is commented out."""
    found: dict[str, str | None] = {}
    for line in (CHECKOUT / ".env.example").read_text().splitlines():
        match = re.fullmatch(r"(#?)([A-Z][A-Z0-9_]+)=(.*)", line)
        if match:
            assert match[2] not in found, f"{match[2]} stands twice in .env.example"
            found[match[2]] = None if match[1] else match[3].strip('"')
    return found


def names_read_by_settings() -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((CHECKOUT / "recovery_site" / "settings.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, first = node.func.value, node.args[0] if node.args else None
            if isinstance(owner, ast.Name) and owner.id == "env" and isinstance(first, ast.Constant):
                names.add(str(first.value))
    return names


def names_read_elsewhere() -> set[str]:
    """Names of os.environ[...], os.environ.get(...), os.getenv(...) and env.text(...) in product code."""
    reading = re.compile(
        r"""(?:environ(?:\.get\(|\.pop\(|\[)|getenv\(|\benv\.text\()\s*["']([A-Z0-9_]+)["'](?!\]\s*=)"""
    )
    names: set[str] = set()
    for app in APPS:
        for path in (CHECKOUT / app).rglob("*.py"):
            names |= set(reading.findall(path.read_text()))
    return names


def test_env_example_names_every_variable_that_is_read_and_no_other() -> None:
    read = names_read_by_settings() | names_read_elsewhere()
    assert len(read) >= 30
    assert documented().keys() == read - NOT_SETTINGS


def test_env_example_shows_the_defaults(loader: Loader, development: dict[str, Any]) -> None:
    shown = {name: value for name, value in documented().items() if value is not None}
    loaded = loader.load({**NOWHERE, **shown})
    assert {name: value for name, value in loaded.items() if development.get(name) != value} == {}


@pytest.mark.django_db
def test_this_run_has_databases_of_its_own() -> None:
    slot, worker = os.environ["TEST_SLOT"], os.environ.get("PYTEST_XDIST_WORKER", "")
    suffix = "" if slot == "0" else f"_{slot}"
    assert connection.settings_dict["NAME"] == f"test_recovery{suffix}" + (f"_{worker}" if worker else "")
    number = int(settings.REDIS_URL.rpartition("/")[2])
    assert number == 1 + 16 * int(slot) + int(worker.removeprefix("gw") or 0)
    assert settings.CACHES["default"]["LOCATION"] == settings.CACHES["limits"]["LOCATION"] == settings.REDIS_URL


@pytest.mark.django_db(transaction=True)
def test_process_started_by_a_test_works_on_its_databases(process_environment: dict[str, str]) -> None:
    name = connection.settings_dict["NAME"]
    assert name.startswith("test_recovery")
    program = (
        "import django; django.setup(); from django.conf import settings; from django.db import connection\n"
        "connection.cursor()\n"
        "print(connection.settings_dict['NAME'], settings.REDIS_URL.rpartition('/')[2])\n"
    )
    inherited = {key: value for key, value in os.environ.items() if key not in NOWHERE}
    for environment in [process_environment, *([inherited] if settings.EMBEDDED_SERVICES else [])]:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        assert done.stdout.split() == [name, settings.REDIS_URL.rpartition("/")[2]]


def test_default_cache_carries_on_without_redis_and_limits_does_not() -> None:
    program = (
        "from django.core.cache import caches\n"
        "caches['default'].set('a', 1); print(caches['default'].get('a'))\n"
        "try:\n    caches['limits'].get('a')\nexcept Exception as error:\n    print(type(error).__name__)\n"
    )
    done = run(["-c", program], NOWHERE)
    assert done.stdout == "None\nConnectionError\n"


def test_redis_client_fixture_starts_empty(redis_client: Redis) -> None:
    assert redis_client.dbsize() == 0
    caches["limits"].set("key", [1, 2])
    assert caches["limits"].get("key") == [1, 2]
    assert redis_client.dbsize() == 1


def test_tests_do_not_pay_for_slow_password_hashes() -> None:
    assert make_password("x").startswith("md5$")
