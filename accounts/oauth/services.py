"""Applications made and ended, tokens that are over: what of OAuth is not the protocol's own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from django.core.exceptions import ValidationError
from django.db import transaction
from oauth2_provider.generators import generate_client_secret
from oauth2_provider.models import AccessToken, Grant, RefreshToken, clear_expired

from accounts.models import Merchant, OAuthApplication, User
from accounts.services import name_clean, scopes_check
from recovery_site.common.errors import InvalidInput, NotFound

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NewApplication:
    """An application at the only moment its secret is known; a public one has none."""

    row: OAuthApplication
    secret: str = field(repr=False)


@transaction.atomic
def application_create(
    *,
    merchant: Merchant,
    name: str,
    scopes: Sequence[str],
    redirect_uris: Sequence[str] = (),
    public: bool = False,
    created_by: User | None = None,
) -> NewApplication:
    """With redirect addresses people grant it tokens (authorization code with PKCE), without it gets its own (client
    credentials). `public`: it runs where no secret can be kept. Raises InvalidInput.
    """
    if public and not redirect_uris:
        raise InvalidInput("A program without a secret can only act for people: give its redirect address.")
    secret = "" if public else generate_client_secret()
    application = OAuthApplication(
        merchant=merchant,
        name=name_clean(name, "An application"),
        scopes=scopes_check(scopes),
        user=created_by,
        client_type=OAuthApplication.CLIENT_PUBLIC if public else OAuthApplication.CLIENT_CONFIDENTIAL,
        authorization_grant_type=(
            OAuthApplication.GRANT_AUTHORIZATION_CODE if redirect_uris else OAuthApplication.GRANT_CLIENT_CREDENTIALS
        ),
        redirect_uris=" ".join(redirect_uris),
        client_secret=secret,
    )
    try:
        application.clean()
    except ValidationError as error:
        raise InvalidInput(" ".join(error.messages)) from error
    application.save()
    log.info("oauth_application_created", merchant=merchant.public_id, client=application.client_id)
    return NewApplication(application, secret)


@transaction.atomic
def application_revoke(*, application_pk: int, now: datetime) -> None:
    """End an application with every token and consent it has; ending it twice changes nothing. Raises NotFound."""
    if not OAuthApplication.objects.filter(pk=application_pk).exists():
        raise NotFound("This application does not exist.")
    if OAuthApplication.objects.filter(pk=application_pk, revoked_at=None).update(revoked_at=now):
        for kind in (Grant, RefreshToken, AccessToken):
            kind.objects.filter(application=application_pk).delete()
        log.info("oauth_application_revoked", application=application_pk)


def tokens_purge() -> int:
    """Delete tokens and consents whose time is over; returns how many access tokens went."""
    before = AccessToken.objects.count()
    clear_expired()
    return before - AccessToken.objects.count()
