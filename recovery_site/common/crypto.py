"""Secrets at rest: Fernet with rotatable keys (FIELD_ENCRYPTION_KEYS, the first one encrypts, all decrypt)."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from recovery_site.common.errors import RecoveryError


class SecretUnreadable(RecoveryError):
    code = "secret_unreadable"
    http_status = 500


@lru_cache(maxsize=8)
def _cipher(keys: tuple[str, ...]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])


def encrypt_json(value: Mapping[str, Any]) -> str:
    """Encrypt a JSON object with the first key; the result is text for a column."""
    plain = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return _cipher(tuple(settings.FIELD_ENCRYPTION_KEYS)).encrypt(plain.encode()).decode()


def decrypt_json(token: str) -> dict[str, Any]:
    """Inverse of `encrypt_json`; raises SecretUnreadable if no configured key fits."""
    try:
        plain = _cipher(tuple(settings.FIELD_ENCRYPTION_KEYS)).decrypt(token.encode())
    except InvalidToken as error:
        raise SecretUnreadable(
            "A stored secret cannot be decrypted: add the key it was written with to FIELD_ENCRYPTION_KEYS."
        ) from error
    value: dict[str, Any] = json.loads(plain)
    return value


def rotate(token: str) -> str:
    """Re-encrypt under the first key, keeping the content."""
    return encrypt_json(decrypt_json(token))
