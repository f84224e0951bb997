"""Secrets that development makes for itself, once per checkout; production brings its own."""

import base64
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

FILE_NAME = "development-secret"


@dataclass(frozen=True, slots=True)
class DevelopmentSecrets:
    """`secret_key` for Django, `fernet_key` for encrypted fields."""

    secret_key: str
    fernet_key: str


def development_secrets(data_dir: Path) -> DevelopmentSecrets:
    """Derive both keys from one random file below `data_dir`, made at the first call."""
    path = data_dir / FILE_NAME
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{FILE_NAME}.{os.getpid()}")
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "wb") as stream:
            stream.write(base64.b64encode(os.urandom(48)))
        # A link never replaces: of two processes that start at once, the first one's secret stays.
        with suppress(FileExistsError):
            os.link(unfinished, path)
        unfinished.unlink()
    seed = path.read_bytes()
    return DevelopmentSecrets(
        secret_key=base64.urlsafe_b64encode(sha256(b"django" + seed).digest()).decode(),
        fernet_key=base64.urlsafe_b64encode(sha256(b"fields" + seed).digest()).decode(),
    )
