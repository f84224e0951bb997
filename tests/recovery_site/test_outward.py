"""What is posted to addresses that people typed in, and what is not: a guard is shown to fail without it first."""

import http.client
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from recovery_site.common import outward
from recovery_site.common.errors import InvalidInput, RecoveryError
from recovery_site.common.outward import Undelivered, post, post_json
from recovery_site.common.targets import TargetRefused, is_public, target_of, url_check

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]
Resolve = Callable[..., list[tuple[object, ...]]]


@contextmanager
def answering(reply: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on loopback that hands every connection to `reply`; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        reply(context.wrap_socket(connection, server_side=True) if context else connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(30)


def says(answer: bytes, heard: list[bytes]) -> Callable[[socket.socket], None]:
    """Reads one request, keeps it and answers."""

    def reply(connection: socket.socket) -> None:
        got = b""
        while not got.endswith(b"{}"):  # the body of every request here
            got += connection.recv(65_536)
        heard.append(got)
        connection.sendall(answer)

    return reply


def leading_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """DNS answers with `addresses`, one after the other if asked again; the names that were asked for."""
    asked: list[str] = []

    def resolved(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        address = addresses[min(len(asked), len(addresses)) - 1]
        return [(None, None, None, "", (one, port)) for one in address.split()]

    monkeypatch.setattr("recovery_site.common.targets.socket.getaddrinfo", resolved)
    return asked


# --- which addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    """10.0.0.7 172.16.1.1 192.168.1.1 127.0.0.1 127.8.8.8 0.0.0.0 169.254.169.254 100.64.0.1 192.0.0.8 198.18.0.1
    224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 fe80::1 fec0::1 fd00::1 ff02::1 2001:db8::1 ::ffff:10.0.0.1
    ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::a9fe:a9fe 2002:a00:1:: 2001:0:a00:1::""".split(),
)
def test_no_private_address_is_public_however_it_is_written(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", "8.8.8.8 93.184.216.34 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808".split())
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


REFUSED = """http://hooks.example.com/x https://localhost/x https://intranet/x https://user:pass@hooks.example.com/
    ftp://hooks.example.com/ https:///x https://hooks.example.com:0/ https://hooks.example.com:99999/
    https://hooks.example.com/#x https://höoks.example.com/ https://[::1 https://10.0.0.1/ https://[::1]:8000/
    https://127.0.0.1/ http://8.8.8.8/""".split()
NO_URLS = [
    "",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/\n",
    f"https://hooks.example.com/{500 * 'x'}",
]


@pytest.mark.parametrize("url", REFUSED + NO_URLS)
def test_address_that_is_not_public_https_is_refused_when_it_is_entered(url: str, settings: Any) -> None:
    settings.PRIVATE_TARGETS = []
    with pytest.raises(RecoveryError) as refused:
        url_check(url)
    assert isinstance(refused.value, InvalidInput | TargetRefused)
    assert refused.value.message.endswith(".")


def test_the_operator_may_allow_networks(settings: Any) -> None:
    settings.PRIVATE_TARGETS = [ipaddress.ip_network("10.1.0.0/16")]
    assert url_check("http://10.1.2.3:8080/hook?x=1").path == "/hook?x=1"
    with pytest.raises(TargetRefused, match="private network"):
        url_check("http://10.2.0.1/")


@pytest.mark.parametrize(
    ("url", "header"),
    [
        ("https://Example.com/", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("https://example.com:8443/", "example.com:8443"),
        ("http://example.com:443/", "example.com:443"),
        ("https://[2606:4700::1111]:8443/", "[2606:4700::1111]:8443"),
    ],
)
def test_the_host_header_is_the_name_with_its_port(url: str, header: str) -> None:
    assert target_of(url).host_header == header


@pytest.mark.parametrize("address", ["10.0.0.7", "127.0.0.1", "169.254.169.254", "::1", "fd00::1", "8.8.8.8 10.0.0.7"])
def test_name_that_leads_into_a_private_network_is_not_posted_to(
    address: str, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.PRIVATE_TARGETS = []
    leading_to(monkeypatch, address)
    with pytest.raises(Undelivered, match="private network"):
        post_json("https://hooks.example.com/x", {})


# --- where the request really goes ------------------------------------------------------------------------------------


def test_the_checked_address_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """A name that is public when it is checked and private when it is connected to (DNS rebinding). Without the guard,
    asking again for the connection, the private one is reached."""
    settings.PRIVATE_TARGETS = []
    heard: list[bytes] = []
    reached: list[object] = []
    with answering(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", heard)) as port:
        asked = leading_to(monkeypatch, "93.184.216.34", "127.0.0.1")
        unguarded = http.client.HTTPConnection("hooks.example.com", port, timeout=5)
        for _ in range(2):
            family = socket.getaddrinfo(unguarded.host, port)  # what any client does by itself
        assert family[0][4] == ("127.0.0.1", port)

        asked.clear()
        monkeypatch.setattr(
            "recovery_site.common.outward._PlainSocket.connect", lambda self, address: reached.append(address)
        )
        monkeypatch.setattr("recovery_site.common.outward._tls", lambda: pytest.fail("never got that far"))
        with pytest.raises(pytest.fail.Exception):
            post(f"https://hooks.example.com:{port}/", b"{}", {})
    assert (asked, reached, heard) == (["hooks.example.com"], [("93.184.216.34", port)], [])


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    heard: list[bytes] = []
    location = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/admin\r\nContent-Length: 0\r\n\r\n"
    inner: list[bytes] = []
    with answering(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", inner)) as private:
        redirecting = says(location % private, heard)
        with answering(redirecting) as port:
            answer = post(f"http://127.0.0.1:{port}/", b"{}", {})
            with pytest.raises(Undelivered, match="answered 302"):
                post_json(f"http://127.0.0.1:{port}/", {})
    assert (answer.status, answer.accepted, len(heard), inner) == (302, False, 2, [])


def test_host_and_certificate_are_the_names_though_the_address_is_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str | None] = []
    heard: list[bytes] = []
    authority, context = self_signed(tmp_path, "hooks.example.com")
    context.sni_callback = lambda sock, name, _: names.append(name)
    trusting = ssl.create_default_context(cafile=str(authority))
    trusting.sslsocket_class = outward._SecureSocket
    monkeypatch.setattr("recovery_site.common.outward._tls", lambda: trusting)
    leading_to(monkeypatch, "127.0.0.1")
    with answering(says(b"HTTP/1.1 204 No Content\r\n\r\n", heard), context) as port:
        answer = post(f"https://hooks.example.com:{port}/in?a=1", b"{}", {"X-Mark": "1"})
        with pytest.raises(Undelivered, match="SSLCertVerificationError"):
            post(f"https://other.example.com:{port}/", b"{}", {})
    assert (answer.status, names[0]) == (204, "hooks.example.com")
    head = heard[0].split(b"\r\n")
    assert head[0] == b"POST /in?a=1 HTTP/1.1"
    assert f"Host: hooks.example.com:{port}".encode() in head
    assert sum(line.lower().startswith(b"host:") for line in head) == 1


def self_signed(directory: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = directory / "key.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return pem, context


# --- patience ---------------------------------------------------------------------------------------------------------


def test_an_answer_that_never_ends_is_cut_off() -> None:
    """One byte at a time, each within any ordinary time-out: the deadline is for the whole of it."""
    sent = [0]

    def drips(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while sent[0] < 100_000:
            connection.sendall(b"x")
            sent[0] += 1
            threading.Event().wait(0.05)

    with answering(drips) as port, pytest.raises(Undelivered, match="TimeoutError"):
        post(f"http://127.0.0.1:{port}/", b"{}", {}, timeout_seconds=0.5)
    assert sent[0] < 100_000


def test_a_long_answer_is_read_no_further_than_needed() -> None:
    long = b"HTTP/1.1 500 Oops\r\nRetry-After: 7\r\nContent-Length: 100000\r\n\r\n" + b"y" * 100_000
    with answering(says(long, [])) as port:
        answer = post(f"http://127.0.0.1:{port}/", b"{}", {})
    assert (answer.status, len(answer.body), answer.retry_after) == (500, outward.ANSWER_BYTES, "7")


def test_what_cannot_be_reached_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Undelivered, match=r"could not be reached \(ConnectionRefusedError\)"):
        post("http://127.0.0.1:9/", b"{}", {})

    def nowhere(*_: object, **__: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("recovery_site.common.targets.socket.getaddrinfo", nowhere)
    with pytest.raises(Undelivered, match="has no address"):
        post("https://hooks.example.com/", json.dumps({}).encode(), {})
