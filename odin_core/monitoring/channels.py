"""Channels: one message about one alert to a webhook in Slack's shape, or by e-mail. When, and what if it fails, is
`delivery`.

A channel is made from secrets that the border read (`odin_core.secrets`); its address never appears in a text, an
error or a `repr`. What is wrong with an address is said when something is sent, so that one bad channel leaves the
others alone."""

import html
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from odin_core.secrets import HIDDEN, SHORTEST

if TYPE_CHECKING:
    import smtplib

    from odin_core.monitoring.alerts import Alert

WEBHOOK: Final = "ODIN_SLACK_WEBHOOK"
SMTP: Final = "ODIN_SMTP_URL"
SECRETS: Final = (WEBHOOK, SMTP)
SMTP_SHAPE: Final = "smtps://user:password@host:465?from=odin@example.com&to=one@example.com,two@example.com"
TIMEOUT: Final = 5.0  # seconds for each step of a conversation
LONGEST: Final = 2900  # characters of a section; Slack takes 3000
COLOURS: Final = {"information": "#1f5fbf", "warning": "#b36b00", "critical": "#b00020"}


class DeliveryFailed(Exception):
    """One message did not arrive. `reached`: the other side answered, so another message may fare better; `wait`: how
    long it asked to be left alone."""

    def __init__(self, why: str, *, reached: bool, wait: timedelta = timedelta(0)) -> None:
        super().__init__(why)
        self.reached, self.wait = reached, wait


@dataclass(frozen=True)
class Webhook:
    """Slack's incoming webhook, and what takes the same JSON (Mattermost, Rocket.Chat, Discord under …/slack)."""

    url: str = field(repr=False)
    name: str = "webhook"

    def send(self, alert: "Alert") -> None:
        """POST the alert; raises DeliveryFailed unless the answer is 2xx. Redirects are not followed: they would carry
        the message to where nobody asked for it."""
        import requests

        if getattr(_parts(self.url), "scheme", "") not in ("https", "http"):
            raise DeliveryFailed(f"{WEBHOOK} is no address of a webhook; it begins with https://", reached=False)
        try:
            answer = requests.post(self.url, json=slack_message(alert), headers={"Idempotency-Key": alert.id},
                                   timeout=TIMEOUT, allow_redirects=False, stream=True)  # fmt: skip
        except requests.RequestException as error:
            why = "no answer in time" if isinstance(error, requests.Timeout) else f"no connection ({_kind(error)})"
            raise DeliveryFailed(why, reached=False) from None  # its text holds the address
        with answer:
            if not 200 <= answer.status_code < 300:
                busy = answer.status_code == 429 or answer.status_code >= 500
                wait = _seconds(answer.headers.get("Retry-After"))
                raise DeliveryFailed(f"the webhook answered {answer.status_code}", reached=not busy, wait=wait)

    def cleared(self, text: str) -> str:
        parts = _parts(self.url)
        return _without(text, self.url, parts.path if parts and len(parts.path) > SHORTEST else "")

    def __str__(self) -> str:
        return "webhook, in Slack's shape"


class _Address(NamedTuple):
    host: str
    port: int
    implicit_tls: bool
    user: str
    password: str
    sender: str
    receivers: tuple[str, ...]
    authority: str | None  # file of certificates to trust instead of the system's


@dataclass(frozen=True)
class Email:
    """E-mail by SMTP. `url` is smtps://… (TLS from the start) or smtp://… (STARTTLS where the server offers it; a
    password is never sent without). User and password are percent-encoded; `ca=FILE` trusts your own certificate."""

    url: str = field(repr=False)
    name: str = "email"

    def send(self, alert: "Alert") -> None:
        """Hand the message to the server; raises DeliveryFailed where it does not take it for every receiver."""
        import smtplib

        address = _address(self.url)
        message = mail(alert, address.sender, address.receivers)
        try:
            with _connected(address) as server:
                if address.user:
                    server.login(address.user, address.password)
                refused = server.send_message(message)
        except smtplib.SMTPResponseException as error:  # its text may quote what was sent
            asked_later = 400 <= error.smtp_code < 500
            said = f"the mail server answered {error.smtp_code}"
            reached = not asked_later and not isinstance(error, smtplib.SMTPAuthenticationError)
            raise DeliveryFailed(said, reached=reached) from None
        except smtplib.SMTPRecipientsRefused:
            raise DeliveryFailed("the mail server refused every receiver", reached=True) from None
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryFailed(f"no mail server took it ({_kind(error)})", reached=False) from None
        if refused:
            raise DeliveryFailed(f"the mail server refused {len(refused)} receivers", reached=True)

    def cleared(self, text: str) -> str:
        password = getattr(_parts(self.url), "password", None) or ""
        return _without(text, self.url, password, unquote(password))

    def __str__(self) -> str:
        return "e-mail by SMTP"


def channels(secrets: Mapping[str, str]) -> tuple[Webhook | Email, ...]:
    """The channels that these secrets set up: ODIN_SLACK_WEBHOOK and ODIN_SMTP_URL; none where neither is given."""
    made: list[Webhook | Email] = []
    if secrets.get(WEBHOOK):
        made.append(Webhook(secrets[WEBHOOK]))
    if secrets.get(SMTP):
        made.append(Email(secrets[SMTP]))
    return tuple(made)


def slack_message(alert: "Alert") -> dict[str, Any]:
    """The JSON of a webhook: `text` for notifications, `blocks` for the channel."""
    title, text = _escaped(alert.title), _escaped(alert.text)
    said = f"*{title}*\n{text}"
    return {
        "text": f"{title}: {text}"[:LONGEST],
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": said[:LONGEST]}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(_facts(alert))}]},
        ],
    }


def mail(alert: "Alert", sender: str, receivers: tuple[str, ...]) -> EmailMessage:
    """The same as text and HTML. Message-ID is made of the alert's id: a mail that comes twice is one in a reader."""
    message = EmailMessage()
    message["Subject"] = " ".join(f"ODIN {alert.title}".split())
    message["From"], message["To"] = sender, ", ".join(receivers)
    message["Date"] = format_datetime(alert.at.astimezone(UTC))
    message["Message-ID"] = f"<{alert.id}@odin>"
    message["X-Odin-Alert"] = alert.id
    facts = _facts(alert)
    message.set_content("\n".join([alert.text, "", *facts]) + "\n")
    colour = COLOURS.get(alert.severity, "#333333")
    message.add_alternative(
        f'<html><body style="font:15px/1.5 sans-serif"><h3 style="color:{colour}">{html.escape(alert.title)}</h3>'
        f'<p>{html.escape(alert.text)}</p><p style="color:#666666">{"<br>".join(map(html.escape, facts))}</p>'
        "</body></html>",
        subtype="html",
    )
    return message


def _facts(alert: "Alert") -> list[str]:
    said = [f"session {alert.session}"] if alert.session else []
    if alert.value is not None and alert.threshold is not None:
        said.append(f"value {alert.value:.4g}, threshold {alert.threshold:.4g}")
    return [*said, f"{alert.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC", f"alert {alert.id}"]


def _address(url: str) -> _Address:
    """The parts of a mail server's address. Raises DeliveryFailed, without the address, where it lacks one."""
    parts = _parts(url)
    if parts is None:
        raise DeliveryFailed(f"{SMTP} is no address; write {SMTP_SHAPE}", reached=False)
    options = parse_qs(parts.query)
    sender = options.get("from", [""])[-1]
    receivers = tuple(r.strip() for listed in options.get("to", []) for r in listed.split(",") if r.strip())
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or not sender or not receivers:
        raise DeliveryFailed(f"{SMTP} lacks a server, from= or to=; write {SMTP_SHAPE}", reached=False)
    return _Address(
        host=parts.hostname, port=parts.port or (465 if parts.scheme == "smtps" else 587),
        implicit_tls=parts.scheme == "smtps", user=unquote(parts.username or ""),
        password=unquote(parts.password or ""), sender=sender, receivers=receivers,
        authority=options.get("ca", [None])[-1],
    )  # fmt: skip


def _connected(address: _Address) -> "smtplib.SMTP":
    """A connection that is as safe as the address asks for."""
    import smtplib

    trust = ssl.create_default_context(cafile=address.authority)
    if address.implicit_tls:
        return smtplib.SMTP_SSL(address.host, address.port, timeout=TIMEOUT, context=trust)
    server = smtplib.SMTP(address.host, address.port, timeout=TIMEOUT)
    try:
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=trust)
            server.ehlo()
        elif address.user:
            raise DeliveryFailed("the mail server offers no TLS, so the password was not sent", reached=False)
    except BaseException:
        server.close()
        raise
    return server


def _parts(url: str) -> SplitResult | None:
    """The parts of an address; None for what is no address."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _without(text: str, *secrets: str) -> str:
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def _escaped(text: str) -> str:
    """As Slack asks for it: three characters only."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seconds(asked: str | None) -> timedelta:
    """A `Retry-After` in seconds; nothing for a date or none."""
    return timedelta(seconds=min(int(asked), 86_400)) if asked and asked.isdigit() else timedelta(0)


def _kind(error: Exception) -> str:
    """What sort of error it was, without its text, which may hold an address or a password."""
    return type(error).__name__
