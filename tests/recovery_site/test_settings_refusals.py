"""What is missing or wrong in the environment ends in one sentence that says what to set."""

import pytest

from tests.recovery_site.settings_loader import NOWHERE, PRODUCTION, Loader, run


def test_production_tells_everything_that_is_missing_at_once(loader: Loader) -> None:
    assert loader.refusal({"ENVIRONMENT": "production"}) == (
        "ENVIRONMENT=production needs DATABASE_URL, REDIS_URL, SECRET_KEY,"
        " FIELD_ENCRYPTION_KEYS, ALLOWED_HOSTS, PUBLIC_URL, EMAIL_URL, DEFAULT_FROM_EMAIL: set them in the"
        " environment; .env.example explains each."
    )


def test_refusal_ends_a_command_in_one_line() -> None:
    done = run(["manage.py", "showmigrations"], {**NOWHERE, "DEBUG": "maybe"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Configuration error: DEBUG is 'maybe': set it to true or false.\n"


@pytest.mark.parametrize("name", sorted(PRODUCTION.keys() - {"ENVIRONMENT"}))
def test_production_names_the_one_that_is_missing_or_blank(loader: Loader, name: str) -> None:
    assert loader.refusal({**PRODUCTION, name: "  "}) == (
        f"ENVIRONMENT=production needs {name}: set it in the environment; .env.example explains each."
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ENVIRONMENT", "prod", "ENVIRONMENT is 'prod': set it to one of development, production, test."),
        ("DEBUG", "maybe", "DEBUG is 'maybe': set it to true or false."),
        ("LOG_LEVEL", "loud", "LOG_LEVEL is 'loud': set it to one of DEBUG, INFO, WARNING, ERROR."),
        ("DATABASE_URL", "sqlite:///x", "DATABASE_URL is no PostgreSQL address: set it to postgresql://"),
        ("DATABASE_URL", "postgresql://h:port/x", "DATABASE_URL is no PostgreSQL address: set it to"),
        ("DATABASE_URL", "postgresql://u:pw@h:5432/", "DATABASE_URL is no PostgreSQL address: set it to"),
        (
            "REDIS_URL",
            "memcached://x",
            "REDIS_URL is no Redis address: set it to redis://:PASSWORD@HOST:PORT/0",
        ),
        ("REDIS_URL", "redis://h:6379/zero", "REDIS_URL is no Redis address: set it to redis://"),
        ("FIELD_ENCRYPTION_KEYS", "short", "FIELD_ENCRYPTION_KEYS: key 1 is no Fernet key (32 bytes in"),
        ("ALLOWED_HOSTS", "https://x.com", "ALLOWED_HOSTS contains 'https://x.com': list bare host names"),
        ("PUBLIC_URL", "example.com", "PUBLIC_URL is 'example.com': set it to the http or https address"),
        ("PUBLIC_URL", "https://x.com/app", "PUBLIC_URL is 'https://x.com/app': set it to the http or https"),
        (
            "EMAIL_URL",
            "mail.example.com",
            "EMAIL_URL is no mail address: set it to smtp+tls://USER:PASSWORD@",
        ),
        ("EMAIL_URL", "smtp://", "EMAIL_URL is no mail address: set it to smtp+tls://USER:PASSWORD@HOST:587"),
        ("BEHIND_TLS_PROXY", "2", "BEHIND_TLS_PROXY is '2': set it to true or false."),
        (
            "RETRY_PROCESSING_INTERVAL",
            "often",
            "RETRY_PROCESSING_INTERVAL is 'often', which is no duration: ",
        ),
        ("RETRY_LOCK_TIMEOUT", "-5", "RETRY_LOCK_TIMEOUT is '-5', which is no duration: write it like 30s,"),
        ("RETRY_MAX_ATTEMPTS", "0", "RETRY_MAX_ATTEMPTS is '0': set it to a whole number from 1 to 100."),
        ("VISA_RETRY_LIMIT", "21", "VISA_RETRY_LIMIT is '21': set it to a whole number from 1 to 20."),
        ("RETRY_MAX_ATTEMPTS", "3.5", "RETRY_MAX_ATTEMPTS is '3.5': set it to a whole number from 1 to 100."),
        ("RECONCILE_WORKER_ENABLED", "y?", "RECONCILE_WORKER_ENABLED is 'y?': set it to true or false."),
        (
            "RECONCILE_INTERVAL",
            "60",
            "RECONCILE_INTERVAL is '60', which has no unit: write it like 30s, 5m or 1h.",
        ),
        (
            "RECONCILE_ORDER_STUCK_AFTER",
            "0m",
            "RECONCILE_ORDER_STUCK_AFTER is '0m': choose a duration above zero",
        ),
        (
            "RECONCILE_REFUND_STUCK_AFTER",
            "1w",
            "RECONCILE_REFUND_STUCK_AFTER is '1w', which is no duration: ",
        ),
        (
            "RECONCILE_REFUND_ORPHAN_AFTER",
            "1.5m",
            "RECONCILE_REFUND_ORPHAN_AFTER is '1.5m', which is no duration",
        ),
        (
            "WEBHOOK_MAX_BODY_BYTES",
            "1MB",
            "WEBHOOK_MAX_BODY_BYTES is '1MB': set it to a whole number from 1024 to",
        ),
        (
            "WEBHOOK_TOLERANCE_SECONDS",
            "0",
            "WEBHOOK_TOLERANCE_SECONDS is '0': set it to a whole number from 1 to",
        ),
        ("QUEUE_WORKERS", "many", "QUEUE_WORKERS is 'many': set it to a whole number from 1 to 64."),
        (
            "QUEUE_TASK_TIMEOUT",
            "240",
            "QUEUE_TASK_TIMEOUT is '240', which has no unit: write it like 30s, 5m or",
        ),
        ("INBOX_WORKERS", "65", "INBOX_WORKERS is '65': set it to a whole number from 1 to 64."),
        (
            "INBOX_TASK_TIMEOUT",
            "x",
            "INBOX_TASK_TIMEOUT is 'x', which is no duration: write it like 30s, 5m or 1h.",
        ),
        ("CLOCK_SPEED", "0.5", "CLOCK_SPEED is '0.5': set it to a number from 1 to 100000."),
        ("CLOCK_SPEED", "nan", "CLOCK_SPEED is 'nan': set it to a number from 1 to 100000."),
        (
            "CLOCK_ANCHOR",
            "yesterday",
            "CLOCK_ANCHOR is 'yesterday': set it to two times like 2026-01-31T12:00:00Z/",
        ),
        (
            "CLOCK_ANCHOR",
            "2026-01-31T12:00/2026-01-01T00:00Z",
            "CLOCK_ANCHOR is '2026-01-31T12:00/2026-01-01T00:00Z'",
        ),
    ],
)
def test_wrong_value_ends_in_its_sentence(loader: Loader, name: str, value: str, sentence: str) -> None:
    assert loader.refusal({**NOWHERE, name: value}).startswith(f"{sentence}")


def test_production_insists_on_https_and_refuses_debug(loader: Loader) -> None:
    assert loader.refusal({**PRODUCTION, "PUBLIC_URL": "http://recovery.example.com"}).startswith(
        "PUBLIC_URL is 'http://recovery.example.com': set it to the https address"
    )
    assert loader.refusal({**PRODUCTION, "DEBUG": "true"}) == (
        "DEBUG is on with ENVIRONMENT=production, which shows secrets to visitors: unset DEBUG."
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://u:hunter2@h/x"),
        ("REDIS_URL", "http://:hunter2@h/0"),
        ("EMAIL_URL", "x://u:hunter2@h"),
        ("FIELD_ENCRYPTION_KEYS", "hunter2"),
    ],
)
def test_message_about_a_value_with_a_password_does_not_repeat_it(loader: Loader, name: str, value: str) -> None:
    assert "hunter2" not in loader.refusal({**NOWHERE, name: value})


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"CLOCK_SPEED": "60"}, "recovery_site.E002"),
        ({"CLOCK_ANCHOR": "2026-01-31T12:00:00Z/2026-01-01T00:00:00Z"}, "recovery_site.E002"),
        ({"QUEUE_TASK_TIMEOUT": "5m"}, "recovery_site.E003"),
    ],
)
def test_production_refuses_what_would_break_a_rule_of_time(variables: dict[str, str], code: str) -> None:
    done = run(["manage.py", "check", "--deploy"], {**PRODUCTION, **variables})
    assert done.returncode == 1
    assert code in done.stderr
