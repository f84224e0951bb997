"""Inbound endpoints: where one provider account sends to, and the secrets that it signs with."""

from django.db import transaction

from accounts.models import Merchant
from invoices.models import Connection
from invoices.services.parties import connection_create
from invoices.states import ConnectionMode
from providers import registry
from providers.base import SignatureInvalid
from recovery_site.common.crypto import decrypt_json, encrypt_json
from recovery_site.common.db import for_no_key_update
from recovery_site.common.errors import InvalidInput, NotFound
from webhooks.models import WebhookEndpoint
from webhooks.selectors import connection_endpoint


@transaction.atomic
def endpoint_create(
    *, merchant: Merchant, provider: str, secret: str, connection: Connection | None = None
) -> WebhookEndpoint:
    """An inbound address for one provider account.

    Without a connection the merchant's only connection of that provider is used; if there is none, an observe-only
    one is made, so that events are recorded and nothing is charged. Raises InvalidInput.
    """
    _check_secret(provider, secret)
    if connection is None:
        found = list(Connection.objects.filter(merchant=merchant, provider=provider)[:2])
        if len(found) > 1:
            raise InvalidInput(f"{merchant} has several {provider} connections; say which one with --connection.")
        connection = (
            found[0]
            if found
            else connection_create(merchant=merchant, provider=provider, config={"mode": ConnectionMode.OBSERVE})
        )
    return WebhookEndpoint.objects.create(
        merchant=merchant,
        connection=connection,
        provider=provider,
        secrets_encrypted=encrypt_json({"current": secret}),
    )


@transaction.atomic
def endpoint_ensure(connection: Connection) -> WebhookEndpoint | None:
    """The newest address of a connection; None if its provider sends nothing that this service understands.

    Made if there is none, without a secret: providers want the address before they tell theirs. Nothing is taken in
    there until `endpoint_rotate` has given it one.
    """
    if not registry.provider(connection.provider).dialect:
        return None
    for_no_key_update(Connection.objects.filter(pk=connection.pk)).get()
    return connection_endpoint(connection) or WebhookEndpoint.objects.create(
        merchant_id=connection.merchant_id,
        connection=connection,
        provider=connection.provider,
        secrets_encrypted=encrypt_json({}),
    )


def _check_secret(provider: str, secret: str) -> None:
    dialect = registry.dialect(provider)
    if not secret:
        raise InvalidInput("A webhook endpoint needs the secret that its provider signs with.")
    dialect.secret_check(secret)


@transaction.atomic
def endpoint_rotate(*, endpoint_pk: int, secret: str) -> None:
    """A new secret; the one before stays valid until the next rotation. Raises NotFound, InvalidInput."""
    endpoint = for_no_key_update(WebhookEndpoint.objects.filter(pk=endpoint_pk)).first()
    if endpoint is None:
        raise NotFound("There is no webhook endpoint with this id.")
    _check_secret(endpoint.provider, secret)
    current = decrypt_json(endpoint.secrets_encrypted).get("current", "")
    endpoint.secrets_encrypted = encrypt_json({"current": secret, "previous": current})
    endpoint.save(update_fields=["secrets_encrypted"])


def endpoint_secrets(endpoint: WebhookEndpoint) -> list[str]:
    """The current secret, then the previous one if there is one. Raises SignatureInvalid if there is none yet."""
    secrets = decrypt_json(endpoint.secrets_encrypted)
    found = [secrets[name] for name in ("current", "previous") if secrets.get(name)]
    if not found:
        raise SignatureInvalid("This address has no secret yet; enter the one that the provider signs with.")
    return found


def endpoint_has_secret(endpoint: WebhookEndpoint) -> bool:
    """Whether webhooks can be taken in at this address."""
    return bool(decrypt_json(endpoint.secrets_encrypted).get("current"))
