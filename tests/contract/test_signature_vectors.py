"""Signatures of every provider against collected vectors, read in place where they lie beside the checkout."""

import base64
import hmac
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from providers import registry
from providers.base import AnswersChallenge, InboundRequest, SignatureInvalid

VECTORS = Path(__file__).parents[2].parent / "shared" / "samples" / "vectors.json"
ALL: list[dict[str, Any]] = json.loads(VECTORS.read_bytes()) if VECTORS.exists() else []
# Digests of the bare algorithm, and the handshake by which an endpoint is set up: no webhooks.
PRIMITIVE = [vector for vector in ALL if vector["scheme"].startswith("primitive")]
CHALLENGES = [vector for vector in ALL if vector["scheme"].startswith("braintree-challenge")]
SIGNED = [vector for vector in ALL if vector not in PRIMITIVE and vector not in CHALLENGES]
# The tolerance that the vectors assume, where it is not the usual one.
TOLERANCES = {"paddle": 5}

pytestmark = pytest.mark.skipif(not ALL, reason="the collected signature vectors are not beside this checkout")


def secrets_of(vector: dict[str, Any]) -> list[str]:
    """As an operator would enter them."""
    secret = vector["secret"]
    if isinstance(secret, list):
        return [str(one) for one in secret]
    if isinstance(secret, dict):
        return [":".join(secret.values())]
    return [secret]


def request_of(vector: dict[str, Any]) -> InboundRequest:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    if vector["provider"] == "braintree":
        form = {"bt_signature": headers.get("bt_signature", ""), "bt_payload": vector["payload"]}
        return InboundRequest(urlencode(form).encode(), {})
    return InboundRequest(vector["payload"].encode(), headers)


@pytest.mark.parametrize("vector", SIGNED, ids=[vector["id"] for vector in SIGNED])
def test_a_careful_receiver_decides_as_the_vector_says(vector: dict[str, Any]) -> None:
    dialect = registry.dialect(vector["provider"])
    tolerance = TOLERANCES.get(vector["provider"], 300)

    def verify() -> None:
        dialect.verify(request_of(vector), secrets_of(vector), now=vector["now"] or 0.0, tolerance_seconds=tolerance)

    if vector["strict_valid"]:
        verify()
    else:
        with pytest.raises(SignatureInvalid):
            verify()


@pytest.mark.parametrize("vector", CHALLENGES, ids=[vector["id"] for vector in CHALLENGES])
def test_a_challenge_is_answered_as_the_vector_says(vector: dict[str, Any]) -> None:
    dialect = registry.dialect(vector["provider"])
    assert isinstance(dialect, AnswersChallenge)
    request = InboundRequest(b"", {}, {"bt_challenge": vector["payload"]})
    if vector["strict_valid"]:
        assert dialect.challenge_answer(request, secrets_of(vector)) == vector["headers"]["bt_challenge_response"]
    else:
        with pytest.raises(SignatureInvalid):
            dialect.challenge_answer(request, secrets_of(vector))


@pytest.mark.parametrize("vector", PRIMITIVE, ids=[vector["id"] for vector in PRIMITIVE])
def test_the_bare_digests_are_what_they_are_said_to_be(vector: dict[str, Any]) -> None:
    digest = hmac.new(vector["secret"].encode(), vector["payload"].encode(), "sha256").hexdigest()
    assert digest == vector["headers"]["hmac-hex"]


def test_a_login_can_also_be_written_as_an_object() -> None:
    vector = next(vector for vector in SIGNED if vector["provider"] == "chargebee" and vector["valid"])
    secret = json.dumps(vector["secret"])
    registry.dialect("chargebee").verify(request_of(vector), [secret], now=0.0, tolerance_seconds=300)
    assert base64.b64decode(vector["headers"]["Authorization"][6:]).decode() == ":".join(vector["secret"].values())


def test_all_of_them_were_tested() -> None:
    assert len(SIGNED) + len(CHALLENGES) + len(PRIMITIVE) == len(ALL)
    for provider in {vector["provider"] for vector in ALL}:
        verdicts = {vector["strict_valid"] for vector in SIGNED if vector["provider"] == provider}
        assert verdicts == {True, False}, provider
