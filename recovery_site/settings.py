"""All settings, flat, from one `Env`. Every variable is explained in `.env.example`, and a test
holds the two together.

Nothing set: development with embedded PostgreSQL and Redis and the simulator. Only ENVIRONMENT=production is
production, and it starts only when everything it needs is set.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from recovery_site.embedded import EmbeddedServiceError, ensure_services
from recovery_site.embedded.slots import claim_test_slot, slot_database_name, slot_redis_number
from recovery_site.environment import Env
from recovery_site.log_config import configure_structlog, logging_config
from recovery_site.secrets import development_secrets

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = BASE_DIR / ".data"

env = Env()
_UNDER_PYTEST = "PYTEST_VERSION" in os.environ
if not _UNDER_PYTEST and (BASE_DIR / ".env").is_file():
    env.read_env(BASE_DIR / ".env")

# --- What runs here -------------------------------------------------------------------------------

ENVIRONMENT = env.choice(
    "ENVIRONMENT", ("development", "production", "test"), "test" if _UNDER_PYTEST else "development"
)
PRODUCTION = ENVIRONMENT == "production"
TESTING = ENVIRONMENT == "test"
if PRODUCTION:
    env.demand(
        (
            "DATABASE_URL",
            "REDIS_URL",
            "SECRET_KEY",
            "FIELD_ENCRYPTION_KEYS",
            "ALLOWED_HOSTS",
            "PUBLIC_URL",
            "EMAIL_URL",
            "DEFAULT_FROM_EMAIL",
        )
    )
DEBUG = env.flag("DEBUG", False)
if DEBUG and PRODUCTION:
    raise ImproperlyConfigured("DEBUG is on with ENVIRONMENT=production, which shows secrets to visitors: unset DEBUG.")

# --- PostgreSQL and Redis -------------------------------------------------------------------------

_database_url = env.text("DATABASE_URL")
_redis_url = env.text("REDIS_URL")
# These commands never touch a database; `services` decides for itself.
_COMMANDS_WITHOUT_SERVICES = {
    "help",
    "version",
    "services",
    "collectstatic",
    "makemessages",
    "compilemessages",
}
_needs_services = not (
    Path(sys.argv[0]).name in {"manage.py", "django-admin"}
    and (
        len(sys.argv) < 2
        or sys.argv[1] in _COMMANDS_WITHOUT_SERVICES
        or {"--help", "-h", "--version"} & set(sys.argv[1:])
    )
)
EMBEDDED_SERVICES = not (_database_url and _redis_url)
if EMBEDDED_SERVICES and not _needs_services:
    _database_url = _database_url or "postgresql://recovery@127.0.0.1:9/embedded-postgresql-not-started"
    _redis_url = _redis_url or "redis://127.0.0.1:9/0"
elif EMBEDDED_SERVICES:
    try:
        _services = ensure_services(DATA_DIR)
    except EmbeddedServiceError as error:
        raise ImproperlyConfigured(str(error)) from error
    _database_url = _database_url or _services.database_url
    _redis_url = _redis_url or _services.redis_url

DATABASES = {
    "default": {
        **env.postgres("DATABASE_URL", _database_url),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        "ATOMIC_REQUESTS": False,
    }
}
PREPARED_STATEMENTS = env.flag("PREPARED_STATEMENTS", True)
DATABASES["default"]["OPTIONS"] = {"connect_timeout": 5, **DATABASES["default"].get("OPTIONS", {})}
REDIS_URL = env.redis("REDIS_URL", _redis_url)
if TESTING:
    # Test runs never touch the application's data: own databases per run (slot) and per pytest-xdist worker.
    _slot = env.integer("TEST_SLOT", -1, minimum=-1, maximum=1000)
    if _slot < 0:
        _slot = claim_test_slot(DATA_DIR)
        os.environ["TEST_SLOT"] = str(_slot)  # workers and subprocesses of this run share it
    _worker = env.text("PYTEST_XDIST_WORKER", "master")
    DATABASES["default"]["TEST"] = {"NAME": slot_database_name(DATABASES["default"]["NAME"], _slot)}
    if EMBEDDED_SERVICES and "pytest" not in sys.modules:
        # A process that a test started: it works where that test does (pytest-django adds the worker's name).
        DATABASES["default"]["NAME"] = DATABASES["default"]["TEST"]["NAME"] + (
            "" if _worker == "master" else f"_{_worker}"
        )
    REDIS_URL = f"{REDIS_URL.rpartition('/')[0]}/{slot_redis_number(_slot, _worker)}"

# Redis may only say no, or rank (DESIGN section 2): short time-outs, and `default` carries on without it.
# `limits` raises, so that a limit is never taken as granted.
_redis_options = {
    "SOCKET_CONNECT_TIMEOUT": 0.25,
    "SOCKET_TIMEOUT": 0.25,
    "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
}
_redis_cache = {
    "BACKEND": "django_redis.cache.RedisCache",
    "LOCATION": REDIS_URL,
}
CACHES = {
    "default": {
        **_redis_cache,
        "KEY_PREFIX": "cache",
        "OPTIONS": {**_redis_options, "IGNORE_EXCEPTIONS": True},
    },
    "limits": {
        **_redis_cache,
        "KEY_PREFIX": "limits",
        "OPTIONS": {**_redis_options, "IGNORE_EXCEPTIONS": False},
    },
}
DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS = True

# --- Secrets and addresses ------------------------------------------------------------------------

_development = None if PRODUCTION else development_secrets(DATA_DIR)
SECRET_KEY = env.text("SECRET_KEY", _development.secret_key if _development else "")
FIELD_ENCRYPTION_KEYS = env.fernet_keys("FIELD_ENCRYPTION_KEYS", [_development.fernet_key] if _development else [])
ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", ["localhost", "127.0.0.1", "[::1]", *(["testserver"] if TESTING else [])])
PUBLIC_URL = env.web_address("PUBLIC_URL", "http://127.0.0.1:8000", https_only=PRODUCTION)
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PRODUCTION else []
# Development files its mail: on stdout it would end up in the middle of a command's JSON.
locals().update(env.mail("EMAIL_URL", "memorymail://" if TESTING else f"filemail:///{quote(str(DATA_DIR))}/mail"))
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "Revenue Recovery <recovery@localhost>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
EMAIL_TIMEOUT = 10

# --- Recovery -------------------------------------------------------------------------------------

RETRY_PROCESSING_INTERVAL = env.duration("RETRY_PROCESSING_INTERVAL", "30000")
RETRY_LOCK_TIMEOUT = env.duration("RETRY_LOCK_TIMEOUT", "300000")
RETRY_THREADS = env.integer("RETRY_THREADS", 24, minimum=1, maximum=256)
RETRY_STRATEGY_MODULES = env.items("RETRY_STRATEGY_MODULES")
RETRY_MAX_ATTEMPTS = env.integer("RETRY_MAX_ATTEMPTS", 3, minimum=1, maximum=100)
VISA_RETRY_LIMIT = env.integer("VISA_RETRY_LIMIT", 15, minimum=1, maximum=20)
RECONCILE_WORKER_ENABLED = env.flag("RECONCILE_WORKER_ENABLED", True)
RECONCILE_INTERVAL = env.duration("RECONCILE_INTERVAL", "1h")
RECONCILE_ORDER_STUCK_AFTER = env.duration("RECONCILE_ORDER_STUCK_AFTER", "30m")
RECONCILE_REFUND_STUCK_AFTER = env.duration("RECONCILE_REFUND_STUCK_AFTER", "30m")
RECONCILE_REFUND_ORPHAN_AFTER = env.duration("RECONCILE_REFUND_ORPHAN_AFTER", "5m")
STAFF_QUEUE_ALERT_AFTER = env.duration("STAFF_QUEUE_ALERT_AFTER", "24h")
SPIKE_ALERTS_ENABLED = env.flag("SPIKE_ALERTS_ENABLED", True)
SPIKE_INTERVAL = env.duration("SPIKE_INTERVAL", "5m")
SPIKE_MIN_FAILURES = env.integer("SPIKE_MIN_FAILURES", 10, minimum=3, maximum=1_000_000)
SPIKE_MIN_RISE = env.integer("SPIKE_MIN_RISE", 10, minimum=1, maximum=100)
WEBHOOK_MAX_BODY_BYTES = env.integer("WEBHOOK_MAX_BODY_BYTES", 1_048_576, minimum=1024, maximum=16_777_216)
WEBHOOK_TOLERANCE_SECONDS = env.integer("WEBHOOK_TOLERANCE_SECONDS", 300, minimum=1, maximum=86_400)
STREAM_URL = env.web_address("STREAM_URL", PUBLIC_URL, https_only=PRODUCTION) if env.text("STREAM_URL") else ""
STREAM_HEARTBEAT = env.duration("STREAM_HEARTBEAT", "15s")
STREAM_CONNECTIONS_PER_MERCHANT = env.integer("STREAM_CONNECTIONS_PER_MERCHANT", 50, minimum=1, maximum=10_000)
STREAM_BACKLOG = env.integer("STREAM_BACKLOG", 500, minimum=1, maximum=100_000)
WEBHOOK_RATE_LIMIT = env.integer("WEBHOOK_RATE_LIMIT", 100_000, minimum=1, maximum=10_000_000)
WEBHOOK_RATE_WINDOW = env.duration("WEBHOOK_RATE_WINDOW", "1m")
WEBHOOK_BAD_LIMIT = env.integer("WEBHOOK_BAD_LIMIT", 300, minimum=1, maximum=10_000_000)
WEBHOOK_READ_TIMEOUT = env.duration("WEBHOOK_READ_TIMEOUT", "10s")
WEB_READ_TIMEOUT = env.duration("WEB_READ_TIMEOUT", "1m")
WEB_THREADS = env.integer("WEB_THREADS", 8, minimum=1, maximum=256)
METRICS_TOKEN = env.text("METRICS_TOKEN")
INBOX_RETENTION = env.duration("INBOX_RETENTION", "90d")
WEBHOOK_OUT_RETENTION = env.duration("WEBHOOK_OUT_RETENTION", "30d")
OUTBOX_RETENTION = env.duration("OUTBOX_RETENTION", "30d")
AUDIT_RETENTION = env.duration("AUDIT_RETENTION", "400d")
IDEMPOTENCY_RETENTION = env.duration("IDEMPOTENCY_RETENTION", "7d")
EVENT_HOOKS = env.items("EVENT_HOOKS")
WEBHOOK_OUT_DISABLE_AFTER = env.duration("WEBHOOK_OUT_DISABLE_AFTER", "5d")
PRIVATE_TARGETS = env.networks("PRIVATE_TARGETS", [] if PRODUCTION else ["127.0.0.0/8", "::1"])
CLOCK_SPEED = env.number("CLOCK_SPEED", 1, minimum=1, maximum=100_000)
CLOCK_ANCHOR = env.clock_anchor("CLOCK_ANCHOR")
DEMO_PORT = env.integer("PORT", 8000, minimum=1, maximum=65_535)

# --- Tasks: django-q2 on the ORM broker (DESIGN section 10) ---------------------------------------

QUEUE_WORKERS = env.integer("QUEUE_WORKERS", 2, minimum=1, maximum=64)
QUEUE_TASK_TIMEOUT = env.duration("QUEUE_TASK_TIMEOUT", "4m")
INBOX_WORKERS = env.integer("INBOX_WORKERS", 1, minimum=1, maximum=64)
INBOX_TASK_TIMEOUT = env.duration("INBOX_TASK_TIMEOUT", "1m")
QUEUE_WEDGED_AFTER = env.duration("QUEUE_WEDGED_AFTER", "20s")
QUEUE_RETRY_SLACK = timedelta(seconds=60)


def _cluster(workers: int, timeout: timedelta) -> dict[str, int]:
    """Pool sizes of one cluster.

    A task is handed out again after `retry`, so that must outlast the longest wait in the cluster's own queue
    plus the task itself; recovery_site.checks holds the rule.
    """
    seconds = int(timeout.total_seconds())
    queue_limit = 2 * workers
    return {
        "workers": workers,
        "queue_limit": queue_limit,
        "bulk": queue_limit,
        "timeout": seconds,
        "retry": seconds * (queue_limit // workers + 1) + 2 * int(QUEUE_RETRY_SLACK.total_seconds()),
    }


Q_CLUSTER: dict[str, Any] = {
    "name": "recovery",
    "label": "Task queue",
    "orm": "default",
    "cache": "default",
    **_cluster(QUEUE_WORKERS, QUEUE_TASK_TIMEOUT),
    "poll": 0.2,
    "save_limit": -1,
    "ack_failures": True,
    "max_attempts": 1,
    "catch_up": False,
    "ALT_CLUSTERS": {"inbox": {**_cluster(INBOX_WORKERS, INBOX_TASK_TIMEOUT), "scheduler": False}},
}

# --- Django ---------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "axes",
    "csp",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "oauth2_provider",
    "pgtrigger",
    "django_q",
    "django_htmx",
    "django_structlog",
    "recovery_site.apps.RecoverySiteConfig",
    "accounts",
    "providers",
    "invoices",
    "tokens",
    "retries",
    "notifications",
    "webhooks",
    "analytics",
    "recovery_site.console",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "recovery_site.request_log.PlainRequestMiddleware",
    "accounts.audit.AuditMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "recovery_site.urls"
WSGI_APPLICATION = "recovery_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = True
STATIC_URL = "/static/"
STATIC_ROOT = DATA_DIR / "static" if PRODUCTION else None  # elsewhere files are served from where they are
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": (
            "whitenoise.storage.CompressedManifestStaticFilesStorage"
            if PRODUCTION
            else "django.contrib.staticfiles.storage.StaticFilesStorage"
        )
    },
}
WHITENOISE_USE_FINDERS = not PRODUCTION
WHITENOISE_AUTOREFRESH = DEBUG or TESTING  # looks when asked, instead of listing every file at the start

# --- People who log in ----------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
if TESTING:
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
SESSION_COOKIE_AGE = 12 * 60 * 60
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "registration/locked.html"
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False

# --- Transport and browser safety -----------------------------------------------------------------

# Only behind a proxy that sets the header itself may it be believed; anybody else could claim https with it.
BEHIND_TLS_PROXY = env.flag("BEHIND_TLS_PROXY", False)
if BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    AXES_IPWARE_PROXY_COUNT = 1
    AXES_IPWARE_META_PRECEDENCE_ORDER = ("HTTP_X_FORWARDED_FOR", "REMOTE_ADDR")
SECURE_SSL_REDIRECT = PRODUCTION
SECURE_REDIRECT_EXEMPT = [r"^health/"]  # asked from inside, where no proxy adds TLS
SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = PRODUCTION
SECURE_HSTS_PRELOAD = PRODUCTION
SESSION_COOKIE_SECURE = PRODUCTION
CSRF_COOKIE_SECURE = PRODUCTION
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'"],
        "font-src": ["'self'"],
        "connect-src": ["'self'", *([STREAM_URL] if STREAM_URL not in ("", PUBLIC_URL) else [])],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
        "object-src": ["'none'"],
        "frame-src": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
}

# --- API ------------------------------------------------------------------------------------------

# Calls per credential: in any window of this length no more than this many are answered.
API_RATE_LIMIT = env.integer("API_RATE_LIMIT", 600, minimum=1, maximum=100_000)
API_RATE_WINDOW = env.duration("API_RATE_WINDOW", "1m")
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.api.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.api.permissions.ScopePermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["accounts.api.parsing.StrictJSONParser"],
    "DEFAULT_FILTER_BACKENDS": ["accounts.api.filters.StrictFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "accounts.api.schema.ApiSchema",
    "EXCEPTION_HANDLER": "accounts.api.problems.handle",
    "UNAUTHENTICATED_USER": None,
}
OAUTH2_PROVIDER_APPLICATION_MODEL = "accounts.OAuthApplication"
OAUTH2_PROVIDER = {
    "SCOPES_BACKEND_CLASS": "accounts.oauth.scopes.MerchantScopes",
    "OIDC_ISS_ENDPOINT": f"{PUBLIC_URL}/oauth",  # the name under which codes are issued (RFC 9207)
    "PKCE_REQUIRED": True,
    "AUTHORIZATION_CODE_EXPIRE_SECONDS": 60,
    "ACCESS_TOKEN_EXPIRE_SECONDS": 60 * 60,
    "REFRESH_TOKEN_EXPIRE_SECONDS": 30 * 24 * 60 * 60,
    "REFRESH_TOKEN_REUSE_PROTECTION": True,
    "ALLOWED_REDIRECT_URI_SCHEMES": ["https"] if PRODUCTION else ["https", "http"],
    # What RFC 9700 recommends; tokens are kept as hashes only.
    "COMPLIANT_BCP_RFC9700_IMPLICIT_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PASSWORD_GRANT": True,
    "COMPLIANT_BCP_RFC9700_PKCE_METHOD": True,
    "COMPLIANT_BCP_RFC9700_ACCESS_TOKEN_TRANSPORT": True,
    "COMPLIANT_BCP_RFC9700_TOKEN_STORAGE": True,
    "COMPLIANT_BCP_RFC9700_AUTHZ_RESPONSE_ISS": True,
    "COMPLIANT_BCP_RFC9700_REFRESH_TOKEN": True,
    "COMPLIANT_BCP_RFC9700_REDIRECT_URI_SCHEME": True,
    "COMPLIANT_BCP_RFC9700_REDIRECT_URI_MATCHING": True,
    "COMPLIANT_BCP_RFC9700_PKCE_REQUIRED": True,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Revenue Recovery",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_PATCH": False,
    "PATH_CONVERTER_OVERRIDE": {
        "public_id": {"type": "string", "pattern": r"^[a-z]{3,5}_[0-9a-hjkmnp-tv-z]{26}$"},
        "reference": {"type": "string", "pattern": r"^[^/\x00-\x1f\x7f-\x9f]{1,200}$"},
        "row": {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999_999},
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "accounts.api.examples.add_examples",
        "accounts.api.summaries.add_summaries",
    ],
    "ENUM_NAME_OVERRIDES": {
        "InvoiceStatus": "invoices.states.InvoiceStatus",
        "TransactionStatus": "invoices.states.TransactionStatus",
        "TransactionKind": "invoices.states.TransactionKind",
        "AttemptStatus": "invoices.states.AttemptStatus",
        "CaseStatus": "retries.states.CaseStatus",
        "JobStatus": "retries.states.JobStatus",
        "NextStep": "retries.states.NextStep",
        "DisputeStatus": "invoices.states.DisputeStatus",
        "DisputeKind": "invoices.states.DisputeKind",
        "TokenStatus": "tokens.states.TokenStatus",
        "InboxStatus": "webhooks.states.InboxStatus",
        "DeliveryStatus": "webhooks.states.DeliveryStatus",
        "RetryStatusValue": "retries.api.serializers.RETRY_STATUSES",
    },
}

# --- Logs -----------------------------------------------------------------------------------------

LOG_LEVEL = env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "WARNING" if TESTING else "INFO")
LOGGING = logging_config(as_json=PRODUCTION, level=LOG_LEVEL)
configure_structlog(cache_loggers=not TESTING)
# An address is personal data; request lines carry ids only.
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False
