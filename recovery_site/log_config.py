"""Structured logging: one event per line on stderr, JSON in production, without card numbers or secrets."""

from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from recovery_site.common.scrubbing import scrub, scrub_text

_PLAIN_TYPES = (str, int, float, bool, bytes, dict, list, tuple, type(None))


def scrub_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Last processor before rendering, so that formatted tracebacks are covered too."""
    plain = {
        key: value if isinstance(value, _PLAIN_TYPES) or key.startswith("_") else scrub_text(str(value))
        for key, value in event.items()
    }
    if event.get("logger") == "django.request":
        plain.pop("request", None)  # names the address with its query string, which may hold somebody's mail address
    kept = {key: plain.pop(key) for key in ("_record", "_from_structlog") if key in plain}
    return {**scrub(plain), **kept}  # type: ignore[dict-item]


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
    ]


def logging_config(*, as_json: bool, level: str) -> dict[str, Any]:
    """Django's LOGGING: standard library and structlog events end in the same stream and format.

    stdout is left to commands, whose `--json` output is one object.
    """
    # With the plain formatter a traceback is text by the time the scrubber sees it.
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback, pad_event_to=40
        )
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _shared_processors(),
                "processors": [
                    structlog.processors.StackInfoRenderer(),
                    structlog.processors.format_exc_info,
                    scrub_event,
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    renderer,
                ],
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "structured",
            }
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            # Django sends these to the console only with DEBUG, and to mail otherwise; here they go one way.
            "django": {"handlers": [], "level": level, "propagate": True},
            "django.server": {"handlers": [], "level": "WARNING", "propagate": True},
            "django.utils.autoreload": {"level": "WARNING"},
            "axes": {"level": "WARNING"},
            # They write whole tokens when they are asked for details.
            "oauthlib": {"level": "WARNING"},
            "oauth2_provider": {"level": "WARNING"},
            # It tells every task's start and end; ours log what the task did.
            "django-q": {"level": "WARNING"},
        },
    }


def configure_structlog(*, cache_loggers: bool) -> None:
    """Send structlog's own loggers through the standard library's handlers above."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared_processors()[:-1],
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=cache_loggers,
    )
