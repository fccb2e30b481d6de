"""E-mail to a real mail server on this machine: encrypted, in two shapes, and never with a password in a text."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from alertcases import SECRET, START, dead_port, on_disk, tell
from fakes.mailserver import PASSWORD, USER, Certificate, MailServer, make_certificate
from fakes.serving import Clock

from odin_core.home import Home, open_home
from odin_core.monitoring.alerts import alerts
from odin_core.monitoring.channels import Email
from odin_core.monitoring.delivery import deliver


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    pytest.importorskip("cryptography")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def mail_address(server: MailServer, scheme: str, trust: Certificate | None = None, user: str = USER) -> str:
    known = f"{user}:{quote(PASSWORD, safe='')}@" if user else ""
    ca = f"&ca={trust.certificate}" if trust else ""
    return f"{scheme}://{known}localhost:{server.port}?from=odin@example.com&to=a@example.com,b@example.com{ca}"


@pytest.mark.parametrize(("scheme", "tls"), [("smtps", "from_the_start"), ("smtp", "starttls")])
def test_an_email_goes_out_encrypted_with_text_and_html_to_everybody(home, clock, certificate, scheme, tls):
    tell(home, "deep <below>")
    with MailServer(certificate, tls=tls) as server:
        done = deliver(home, [Email(mail_address(server, scheme, certificate))], clock.now)
    assert (done.sent, done.to_text()) == (1, "1 sent, 0 failed, 0 given up, 0 waiting")
    [mail] = server.received
    assert (mail.sender, mail.receivers) == ("odin@example.com", ("a@example.com", "b@example.com"))
    assert (mail.encrypted, mail.user) == (True, USER)
    [alert] = alerts(home)
    assert mail.message["Subject"] == "ODIN demo: drawdown (warning)"
    assert (mail.message["Message-ID"], mail.message["X-Odin-Alert"]) == (f"<{alert.id}@odin>", alert.id)
    text, page = mail.message.get_body(("plain",)), mail.message.get_body(("html",))
    assert text is not None
    assert page is not None
    assert "deep <below>" in text.get_content()
    assert "deep &lt;below&gt;" in page.get_content()


def test_a_password_is_never_sent_without_encryption(home, clock):
    tell(home, "deep")
    with MailServer(tls="none") as server:
        done = deliver(home, [Email(mail_address(server, "smtp"))], clock.now)
        assert "offers no TLS" in done.to_text()
        assert not server.received
        clock.at += timedelta(minutes=1)
        assert deliver(home, [Email(mail_address(server, "smtp", user=""))], clock.now).sent == 1
    assert [mail.user for mail in server.received] == [None]


def test_a_certificate_that_nobody_trusts_is_refused(home, clock, certificate):
    tell(home, "deep")
    with MailServer(certificate, tls="from_the_start") as server:
        done = deliver(home, [Email(mail_address(server, "smtps"))], clock.now)
    assert done.failed == 1
    assert not server.received


def test_a_mail_server_that_refuses_twice_gets_it_the_third_time(home, clock, certificate):
    tell(home, "deep")
    with MailServer(certificate, tls="starttls") as server:
        server.refuse = {"MAIL": ["451 later"], "AUTH": ["454 not now"]}
        using = [Email(mail_address(server, "smtp", certificate))]
        outcomes = []
        for minutes in (0, 1, 3):
            clock.at = START + timedelta(minutes=minutes)
            outcomes.append([line["error"] or "delivered" for line in deliver(home, using, clock.now).lines])
    assert outcomes == [["the mail server answered 454"], ["the mail server answered 451"], ["delivered"]]


def test_a_wrong_password_is_told_without_it(home, clock, certificate):
    tell(home, "deep")
    wrong = "Wr0ngP4ss"
    with MailServer(certificate, tls="starttls") as server:
        address = mail_address(server, "smtp", certificate).replace(quote(PASSWORD, safe=""), wrong)
        done = deliver(home, [Email(address)], clock.now)
    assert done.to_text().endswith("email: the mail server answered 535")
    assert wrong not in on_disk(home) + done.to_text() + repr(Email(address)) + str(done)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("smtps://u:{secret}@host:465", "lacks a server, from= or to="),
        ("smtps://u:{secret}@host:465?from=a@b.c", "lacks a server, from= or to="),
        ("https://u:{secret}@host?from=a@b.c&to=d@e.f", "lacks a server, from= or to="),
        ("smtps://u:{secret}@host:port?from=a@b.c&to=d@e.f", "is no address"),
        ("{secret}", "lacks a server, from= or to="),
        ("smtp://u:{secret}@127.0.0.1:{port}?from=a@b.c&to=d@e.f", "no mail server took it"),
    ],
)
def test_a_mail_address_that_cannot_work_is_told_without_its_password(home, clock, address, why):
    tell(home, "deep")
    channel = Email(address.format(secret=SECRET, port=dead_port()))
    done = deliver(home, [channel], clock.now)
    assert why in done.to_text()
    assert SECRET not in on_disk(home) + done.to_text() + repr(channel) + str(channel)
