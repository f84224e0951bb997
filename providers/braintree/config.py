"""What a connection to Braintree is made of."""

from collections.abc import Mapping

from providers.guide import Guide, Kind, Setting, another_address, timeout
from recovery_site.common.errors import InvalidInput
from recovery_site.common.money import currency_code

GUIDE = Guide(
    title="Braintree",
    modes=("charge", "observe"),
    settings=(
        Setting(name="merchant_id", label="Merchant id", help="the merchant id of the API keys", required=True),
        Setting(name="public_key", label="Public key", help="the public key of the API keys", required=True),
        Setting(
            name="private_key",
            label="Private key",
            help="the private key of the API keys",
            kind=Kind.SECRET,
            required=True,
        ),
        Setting(
            name="environment",
            label="Environment",
            help="sandbox or production",
            kind=Kind.CHOICE,
            choices=("sandbox", "production"),
            required=True,
        ),
        Setting(
            name="merchant_accounts",
            label="Merchant accounts by currency",
            help="which merchant account charges which currency, such as EUR=acme_eur, USD=acme_usd",
            required=True,
        ),
        another_address("https://proxy.example"),
        timeout(30.0, 120.0),
    ),
    events=(
        "subscription_charged_successfully",
        "subscription_charged_unsuccessfully",
        "subscription_canceled",
        "subscription_expired",
        "transaction_settled",
        "transaction_settlement_declined",
        "transaction_retried",
        "refund_failed",
        "dispute_opened",
        "dispute_accepted",
        "dispute_expired",
        "dispute_won",
        "dispute_lost",
        "payment_method_customer_data_updated",
        "payment_method_revoked_by_customer",
        "granted_payment_method_revoked",
    ),
    where="Braintree's Control Panel, API, Webhooks: a webhook with this address and these kinds.",
    signed_with="public_key:private_key of the API keys.",
)


def merchant_accounts(text: str) -> Mapping[str, str]:
    """`EUR=acme_eur, USD=acme_usd` by currency. Raises InvalidInput."""
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        currency, sign, account = (part.strip() for part in entry.partition("="))
        if not sign or not account:
            raise InvalidInput(
                "merchant_accounts of the Braintree connection must look like EUR=acme_eur, USD=acme_usd."
            )
        found[currency_code(currency)] = account
    return found
