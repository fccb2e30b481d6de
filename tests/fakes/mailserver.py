"""A mail server: enough SMTP for smtplib, with STARTTLS or TLS from the start, AUTH PLAIN and refusals to order."""

import base64
import email
import email.policy
import ipaddress
import socketserver
import ssl
import threading
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

USER, PASSWORD = "odin", "p@ss/word?"


class Received(NamedTuple):
    sender: str
    receivers: tuple[str, ...]
    message: EmailMessage
    encrypted: bool
    user: str | None


class Certificate(NamedTuple):
    """Files of a certificate for localhost and 127.0.0.1 that signs itself."""

    certificate: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    files = Certificate(folder / "certificate.pem", folder / "key.pem")
    files.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = serialization.NoEncryption()
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, private))
    return files


class MailServer:
    """`received` is what came in. `tls` is starttls, from_the_start or none; `refuse` maps the first word of a command
    to the line that is answered instead, once each time it is in the list."""

    def __init__(self, certificate: Certificate | None = None, *, tls: str = "none") -> None:
        self.received: list[Received] = []
        self.refuse: dict[str, list[str]] = {}
        self.tls = tls
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate.certificate, certificate.key)

    def __enter__(self) -> "MailServer":
        fake = self

        class Handler(_Conversation):
            server_side = fake

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Conversation(socketserver.BaseRequestHandler):
    server_side: MailServer

    def handle(self) -> None:
        self.encrypted, self.user = False, None
        self.sender, self.receivers = "", []
        try:
            if self.server_side.tls == "from_the_start":
                self._encrypt()
            self._open()
            self._say("220 fake ready")
            while line := self.file.readline():
                if not self._answer(line.decode().strip()):
                    return
        except (OSError, ValueError):
            return  # the client went away

    def _open(self) -> None:
        self.file = self.request.makefile("rb")

    def _encrypt(self) -> None:
        assert self.server_side.context is not None
        self.request = self.server_side.context.wrap_socket(self.request, server_side=True)
        self.encrypted = True

    def _say(self, *lines: str) -> None:
        self.request.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def _answer(self, line: str) -> bool:
        """Whether the conversation goes on."""
        word, _, rest = line.partition(" ")
        word = word.upper()
        if refusals := self.server_side.refuse.get(word):
            self._say(refusals.pop(0))
            return True
        return getattr(self, f"_{word.lower()}", self._unknown)(rest)

    def _unknown(self, rest: str) -> bool:
        self._say("502 what?")
        return True

    def _ehlo(self, rest: str) -> bool:
        offered = ["250-fake"]
        if self.server_side.tls == "starttls" and not self.encrypted:
            offered.append("250-STARTTLS")
        self._say(*offered, "250 AUTH PLAIN")
        return True

    def _starttls(self, rest: str) -> bool:
        self._say("220 go ahead")
        self._encrypt()
        self._open()
        return True

    def _auth(self, rest: str) -> bool:
        _, user, password = base64.b64decode(rest.split()[1]).decode().split("\0")
        known = (user, password) == (USER, PASSWORD)
        self.user = user if known else None
        self._say("235 welcome" if known else f"535 wrong: {user} {password}")
        return True

    def _mail(self, rest: str) -> bool:
        self.sender, self.receivers = rest.partition("<")[2].partition(">")[0], []
        self._say("250 ok")
        return True

    def _rcpt(self, rest: str) -> bool:
        self.receivers.append(rest.partition("<")[2].partition(">")[0])
        self._say("250 ok")
        return True

    def _data(self, rest: str) -> bool:
        self._say("354 go on")
        lines = []
        while (line := self.file.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        self.server_side.received.append(
            Received(self.sender, tuple(self.receivers), message, self.encrypted, self.user)
        )
        self._say("250 taken")
        return True

    def _rset(self, rest: str) -> bool:
        self._say("250 ok")
        return True

    def _quit(self, rest: str) -> bool:
        self._say("221 bye")
        return False
