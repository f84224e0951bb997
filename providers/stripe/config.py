"""A connection's settings, checked before anything is sent with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from providers.guide import Guide, Kind, Setting, timeout
from recovery_site.common.errors import InvalidInput

API = "https://api.stripe.com"
# Stripe's SDK waits 80 s; a card answers within seconds, and a lease has to outlast what is configured here.
DEFAULT_TIMEOUT_SECONDS = 30.0
_TIMEOUTS = (0.1, 300.0)
_KEY = re.compile(r"[\x21-\x7e]{1,500}")
_ACCOUNT = re.compile(r"acct_[A-Za-z0-9]{1,100}")

GUIDE = Guide(
    title="Stripe",
    modes=("charge", "collect", "observe"),
    settings=(
        Setting(
            name="api_key",
            label="Secret or restricted key",
            help="Stripe's secret or restricted key, sk_... or rk_...",
            kind=Kind.SECRET,
            required=True,
        ),
        Setting(name="base_url", label="Address of the API", help=f"an address such as {API}", kind=Kind.URL),
        Setting(
            name="account",
            label="Connected account",
            help="with Stripe Connect the account that is charged, acct_...; events of other accounts are left alone",
        ),
        timeout(DEFAULT_TIMEOUT_SECONDS, _TIMEOUTS[1]),
        Setting(
            name="emulator",
            label="An imitation of Stripe",
            help="true sends only parameters that imitations know",
            kind=Kind.FLAG,
        ),
    ),
    events=(
        *(
            "invoice." + name
            for name in (
                "payment_failed payment_action_required paid updated finalized voided marked_uncollectible overdue"
            ).split()
        ),
        "invoice_payment.paid",
        *("payment_intent." + name for name in "payment_failed succeeded processing".split()),
        *("charge." + name for name in ("failed succeeded captured pending refunded refund.updated").split()),
        *("charge.dispute." + name for name in "created updated closed".split()),
        *("refund." + name for name in "created updated failed".split()),
        *("payment_method." + name for name in "attached updated automatically_updated detached".split()),
        *("customer.source." + name for name in "updated expiring deleted".split()),
        "customer.updated",
        "customer.subscription.deleted",
        "mandate.updated",
    ),
    where="Stripe's dashboard, Developers, Webhooks: add an endpoint with this address and these events.",
    signed_with="The endpoint's signing secret, whsec_..., exactly as Stripe shows it.",
)


@dataclass(frozen=True, slots=True)
class StripeConfig:
    """`timeout_seconds`: all that one call may take. An `emulator` knows only Stripe's core."""

    api_key: str = field(repr=False)
    base_url: str
    timeout_seconds: float
    emulator: bool
    account: str = ""


def read_config(config: Mapping[str, Any]) -> StripeConfig:
    """Raises InvalidInput naming what to set; never shows the key."""
    base_url, host = _base_url(config.get("base_url"))
    emulator = config.get("emulator")
    if emulator is None:
        emulator = host != "stripe.com" and not host.endswith(".stripe.com")
    if not isinstance(emulator, bool):
        raise InvalidInput("The connection's emulator setting must be true or false.")
    return StripeConfig(
        api_key=_api_key(config.get("api_key")),
        base_url=base_url,
        timeout_seconds=_timeout(config.get("timeout_seconds")),
        emulator=emulator,
        account=_account(config.get("account")),
    )


def _account(value: object) -> str:
    account = value.strip() if isinstance(value, str) else ""
    if (value is not None and not isinstance(value, str)) or (account and not _ACCOUNT.fullmatch(account)):
        raise InvalidInput("The connection's account must be the id of a connected account, acct_...")
    return account


def _api_key(value: object) -> str:
    key = value.strip() if isinstance(value, str) else ""
    if not _KEY.fullmatch(key):
        raise InvalidInput(
            "The connection has no usable api_key; set Stripe's secret or restricted key (sk_... or rk_...)."
        )
    return key


def _base_url(value: object) -> tuple[str, str]:
    url = (value.strip() if isinstance(value, str) else "") or API
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        usable = parts.scheme in ("http", "https") and bool(host) and "@" not in parts.netloc
        usable = usable and not (parts.query or parts.fragment) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable, host = False, ""
    if not usable:
        raise InvalidInput(
            "The connection's base_url is no address of an API; set something like https://api.stripe.com."
        )
    return url.rstrip("/"), host


def _timeout(value: object) -> float:
    if value is None:
        return DEFAULT_TIMEOUT_SECONDS
    low, high = _TIMEOUTS
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidInput(f"The connection's timeout_seconds must be a number from {low:g} to {high:g}.")
    return float(value)
