"""`Authorization: Bearer ...`: an API key or an OAuth access token, both bound to one merchant."""

import hashlib
import hmac
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from oauth2_provider.models import AccessToken
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.api.caller import Caller
from accounts.keys import key_hash, key_prefix
from accounts.models import ApiKey
from accounts.scopes import Scope
from accounts.selectors import scopes_of
from recovery_site.common import clock

# "Last used" is for people who clean up keys: a minute is exact enough, and most calls then write nothing.
_USED_EVERY = timedelta(minutes=1)
_INVALID = "The credentials are not valid: the key or token is unknown, expired or revoked."


class BearerAuthentication(BaseAuthentication):
    """The caller as `request.user`. Raises AuthenticationFailed for credentials that are not good; None for none."""

    def authenticate(self, request: Request) -> tuple[Caller, Caller] | None:
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        if len(words) != 2:
            raise AuthenticationFailed("Send exactly one key or token after Bearer.")
        try:
            text = words[1].decode("ascii")
        except UnicodeDecodeError:
            raise AuthenticationFailed(_INVALID) from None
        caller = api_key_caller(text) or oauth_caller(text)
        if caller is None:
            raise AuthenticationFailed(_INVALID)
        return caller, caller

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="api"'


def api_key_caller(text: str) -> Caller | None:
    """The caller of an API key, or None. The time the key was last used is noted."""
    prefix = key_prefix(text)
    key = ApiKey.objects.select_related("merchant").filter(prefix=prefix).first() if prefix else None
    now = clock.now()
    if key is None or not hmac.compare_digest(key.key_hash, key_hash(text)):
        return None
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
        return None
    if key.last_used_at is None or now - key.last_used_at > _USED_EVERY:
        stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _USED_EVERY)
        ApiKey.objects.filter(stale, pk=key.pk).update(last_used_at=now)
    return Caller(
        merchant=key.merchant,
        actor=f"key:{key.prefix}",
        credential=f"key:{key.prefix}",
        scopes=frozenset(key.scopes),
    )


def oauth_caller(text: str) -> Caller | None:
    """The caller of an OAuth access token, or None. A person's token does what the person's role allows now."""
    checksum = hashlib.sha256(text.encode()).hexdigest()
    valid = AccessToken.objects.filter(token_checksum=checksum, expires__gt=timezone.now())
    token = valid.select_related("application__merchant", "user").first()
    application = token.application if token is not None else None
    if token is None or application is None or application.revoked_at is not None:
        return None
    granted = frozenset(token.scope.split()) & frozenset(application.scopes)
    if token.user is None:
        actor = f"app:{application.client_id}"
        return Caller(merchant=application.merchant, actor=actor, credential=actor, scopes=granted)
    allowed = scopes_of(token.user, application.merchant)
    if not allowed:
        return None  # not a member any more
    return Caller(
        merchant=application.merchant,
        actor=f"user:{token.user.pk}",
        credential=f"app:{application.client_id}:user:{token.user.pk}",
        scopes=granted & allowed,
        user=token.user,
    )


class BearerScheme(OpenApiAuthenticationExtension):
    """How the OpenAPI document names it."""

    target_class = "accounts.api.authentication.BearerAuthentication"
    name = ["apiKey", "oauth2"]

    def get_security_definition(self, auto_schema):
        scopes = {scope.value: str(scope.label) for scope in Scope}
        return [
            {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer rk_...`."},
            {
                "type": "oauth2",
                "flows": {
                    "clientCredentials": {"tokenUrl": "/oauth/token", "scopes": scopes},
                    "authorizationCode": {
                        "authorizationUrl": "/oauth/authorize",
                        "tokenUrl": "/oauth/token",
                        "refreshUrl": "/oauth/token",
                        "scopes": scopes,
                    },
                },
            },
        ]

    def get_security_requirement(self, auto_schema):
        needed = auto_schema.view.scope_for(auto_schema.method)
        return [{"apiKey": []}, {"oauth2": [needed.value]}]
