"""Delivery to a real web server and a real mail server on this machine, which refuse, hang and break."""

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import pytest
from fakes.mailserver import PASSWORD, USER, Certificate, MailServer, make_certificate
from fakes.serving import Clock, FakeServer, Reply, Request, instead, reset

from odin_core.home import Home, open_home
from odin_core.monitoring.alerts import Alert, alerts, raise_alert
from odin_core.monitoring.channels import Email, Webhook, channels
from odin_core.monitoring.delivery import FILE, MOST, Delivery, deliver, try_out, undelivered

START = datetime(2026, 1, 5, 10, tzinfo=UTC)
SECRET = "T0PSECRETPATH"


class Receiver(FakeServer):
    """Takes every message, and keeps its JSON."""

    def answer(self, request: Request) -> Reply:
        return Reply(200, b"ok", content_type="text/plain")

    @property
    def address(self) -> str:
        return f"{self.url}/services/{SECRET}"

    @property
    def texts(self) -> list[str]:
        return [json.loads(request.body)["text"] for request in self.requests]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


@pytest.fixture
def receiver(clock: Clock):
    with Receiver(clock) as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    pytest.importorskip("cryptography")
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def tell(home: Home, text: str, at: datetime = START) -> None:
    assert raise_alert(home, at=at, market="demo", rule="drawdown", text=text, value=0.05, threshold=0.04)


def status(code: int, **headers: str):
    return instead(Reply(code, b"no", headers={name.replace("_", "-"): value for name, value in headers.items()}))


def dead_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def on_disk(home: Home) -> str:
    return "".join(path.read_text(errors="replace") for path in home.root.rglob("*") if path.is_file())


def test_each_alert_arrives_once_in_slacks_shape_with_its_id(home, receiver, clock):
    tell(home, "deep <below> & beyond")
    tell(home, "second", START + timedelta(seconds=1))
    first = deliver(home, [Webhook(receiver.address)], clock.now)
    again = deliver(home, [Webhook(receiver.address)], clock.now)
    assert (first.sent, first.failed, first.waiting, again.sent) == (2, 0, 0, 0)
    message = json.loads(receiver.requests[0].body)
    assert message["text"] == "demo: drawdown (warning): deep &lt;below&gt; &amp; beyond"
    assert message["blocks"][0]["text"]["text"].startswith("*demo: drawdown (warning)*\n")
    facts = message["blocks"][1]["elements"][0]["text"]
    assert "value 0.05, threshold 0.04" in facts
    ids = [alert.id for alert in alerts(home)]
    assert facts.endswith(f"alert {ids[0]}")
    assert [request.headers["Idempotency-Key"] for request in receiver.requests] == ids


def test_a_webhook_that_refuses_twice_gets_it_the_third_time_after_the_back_off(home, receiver, clock):
    tell(home, "deep")
    receiver.fail(status(500), status(503))
    using = [Webhook(receiver.address)]
    outcomes = []
    for minutes in (0, 0.5, 1, 2.9, 3, 60):  # tries are due at 0, then after 1 and after 2 more minutes
        clock.at = START + timedelta(minutes=minutes)
        done = deliver(home, using, clock.now)
        outcomes.append((done.sent, done.failed, done.waiting))
    assert outcomes == [(0, 1, 1), (0, 0, 1), (0, 1, 1), (0, 0, 1), (1, 0, 0), (0, 0, 0)]
    assert len(receiver.requests) == 3
    assert len({request.headers["Idempotency-Key"] for request in receiver.requests}) == 1


def test_the_wait_doubles_up_to_six_hours_and_ends_after_a_day(home, clock):
    tell(home, "deep")
    using = [Webhook(f"http://127.0.0.1:{dead_port()}/x/{SECRET}")]
    tried = []
    while undelivered(home, using, clock.now()) and clock.at < START + timedelta(days=3):
        if deliver(home, using, clock.now).lines:
            tried.append(clock.at)
        clock.at += timedelta(minutes=1)
    waits = [(b - a).total_seconds() / 60 for a, b in pairwise(tried)]
    assert waits[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(waits[9:]) == {360}
    assert tried[-1] - tried[0] <= timedelta(days=1)
    assert tried[-1] - tried[0] > timedelta(hours=18)
    last = json.loads((home.root / FILE).read_text().splitlines()[-1])
    assert last["outcome"] == "given_up"
    tell(home, "the next one", clock.at)
    assert deliver(home, using, clock.now).failed == 1, "what was given up does not stop what comes later"


def test_a_webhook_that_hangs_costs_seconds_and_the_others_still_get_it(home, receiver, clock):
    tell(home, "deep")
    with Receiver(clock) as hanging:
        hanging.fail(hanging.hang, hanging.hang)
        begun = time.monotonic()
        done = deliver(home, [Webhook(hanging.address, "slow"), Webhook(receiver.address)], clock.now, seconds=0.3)
        took = time.monotonic() - begun
    assert [(line["channel"], line["outcome"]) for line in done.lines] == [("slow", "failed"), ("webhook", "delivered")]
    assert done.lines[0]["error"] == "no answer within 0.3 s"
    assert took < 5


class Drip(Receiver):
    """Answers a byte at a time, so that no single wait is long."""

    def __enter__(self) -> "Drip":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            while not self._over.wait(0.02):
                connection.sendall(b"H")

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.close()


def test_an_answer_that_never_ends_is_cut_off(home, clock):
    tell(home, "deep")
    with Drip(clock) as drip:
        assert deliver(home, [Webhook(drip.address)], clock.now, seconds=0.3).failed == 1


def test_a_message_that_is_refused_lets_the_next_one_pass_but_one_out_of_reach_does_not(home, receiver, clock):
    for i in range(3):
        tell(home, f"number {i}", START + timedelta(seconds=i))
    receiver.fail(status(400))
    done = deliver(home, [Webhook(receiver.address)], clock.now)
    assert [line["outcome"] for line in done.lines] == ["failed", "delivered", "delivered"]
    clock.at += timedelta(minutes=2)
    receiver.fail(reset)
    tell(home, "number 3", START + timedelta(seconds=3))
    assert [line["outcome"] for line in deliver(home, [Webhook(receiver.address)], clock.now).lines] == ["failed"]


def test_a_busy_webhook_is_left_alone_as_long_as_it_asks(home, receiver, clock):
    tell(home, "deep")
    receiver.fail(status(429, Retry_After="600"))
    using = [Webhook(receiver.address)]
    assert deliver(home, using, clock.now).failed == 1
    clock.at = START + timedelta(minutes=9)
    assert not deliver(home, using, clock.now).lines
    clock.at = START + timedelta(minutes=10)
    assert deliver(home, using, clock.now).sent == 1


def test_a_redirect_is_not_followed(home, receiver, clock):
    tell(home, "deep")
    receiver.fail(status(302, Location=f"{receiver.url}/elsewhere"))
    assert deliver(home, [Webhook(receiver.address)], clock.now).failed == 1
    assert len(receiver.requests) == 1


def test_one_call_sends_a_bounded_number_and_the_next_ones_the_rest(home, receiver, clock):
    for i in range(2 * MOST + 3):
        tell(home, f"number {i}", START + timedelta(seconds=i))
    sent = [deliver(home, [Webhook(receiver.address)], clock.now).sent for _ in range(4)]
    assert sent == [MOST, MOST, 3, 0]
    assert [text.rsplit(" ", 1)[1] for text in receiver.texts] == [str(i) for i in range(2 * MOST + 3)]


def test_a_channel_of_today_is_not_told_of_last_week(home, receiver, clock):
    tell(home, "long ago", START - timedelta(days=7))
    tell(home, "yesterday", START - timedelta(days=1))
    deliver(home, [Webhook(receiver.address)], clock.now)
    assert [text.rsplit(" ", 1)[1] for text in receiver.texts] == ["yesterday"]


def test_an_error_of_any_kind_is_a_line_without_the_secret(home, clock):
    class Broken:
        name = "broken"

        def send(self, alert: Alert) -> None:
            raise RuntimeError(f"could not open {SECRET}\nat all")

        def cleared(self, text: str) -> str:
            return text.replace(SECRET, "[secret]")

    tell(home, "deep")
    done = deliver(home, [Broken()], clock.now)
    assert done.lines[0]["error"] == "RuntimeError: could not open [secret] at all"
    assert "broken: RuntimeError: could not open [secret] at all" in done.to_text()


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:{port}/services/{secret}", "ftp://{secret}", "not an address {secret}", "http://[{secret}/x"],
)
def test_no_secret_of_a_webhook_is_ever_written_or_shown(home, clock, address):
    tell(home, "deep")
    hook = Webhook(address.format(port=dead_port(), secret=SECRET))
    done = deliver(home, [hook], clock.now)
    assert done.failed == 1
    assert SECRET not in on_disk(home) + done.to_text() + repr(hook) + str(hook) + str(done)


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


def test_channels_are_those_whose_secrets_are_given():
    assert channels({}) == ()
    assert channels({"ODIN_SLACK_WEBHOOK": "", "ODIN_SMTP_URL": ""}) == ()
    both = channels({"ODIN_SLACK_WEBHOOK": "https://x/y", "ODIN_SMTP_URL": "smtps://h?from=a@b.c&to=d@e.f"})
    assert [channel.name for channel in both] == ["webhook", "email"]


def test_trying_out_notes_nothing(home, receiver, clock):
    receiver.fail(status(500))
    trial = Alert(market="odin", rule="test", severity="information", text="a test", key="test", at=START)
    assert try_out([Webhook(receiver.address)], trial) == {"webhook": "the webhook answered 500"}
    assert try_out([Webhook(receiver.address)], trial) == {"webhook": "delivered"}
    assert not (home.root / FILE).exists()


def test_while_another_process_delivers_nothing_is_sent_twice(home, receiver, clock):
    tell(home, "deep")
    entered, done = threading.Event(), threading.Event()

    def slow(honest: Callable[[], Reply]) -> Reply:
        entered.set()
        done.wait(10)
        return honest()

    receiver.fail(slow)
    results: list[Delivery] = []
    first = threading.Thread(target=lambda: results.append(deliver(home, [Webhook(receiver.address)], clock.now)))
    first.start()
    assert entered.wait(10)
    second = deliver(home, [Webhook(receiver.address)], clock.now)
    done.set()
    first.join()
    assert second.busy
    assert (results[0].sent, len(receiver.requests)) == (1, 1)


def _deliver_until_killed(root: Path, address: str) -> None:
    deliver(open_home(root), [Webhook(address)], lambda: START)


def test_a_kill_between_sending_and_noting_sends_once_more_with_the_same_id(home, receiver, clock):
    tell(home, "deep")
    arrived = threading.Event()

    def then_hang(honest: Callable[[], Reply]) -> Reply:
        arrived.set()
        return receiver.hang(honest)

    receiver.fail(then_hang)
    process = multiprocessing.get_context("spawn").Process(
        target=_deliver_until_killed, args=(home.root, receiver.address)
    )
    process.start()
    assert arrived.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = deliver(home, [Webhook(receiver.address)], clock.now)
    assert done.sent == 1
    assert len(receiver.requests) == 2
    assert len({request.headers["Idempotency-Key"] for request in receiver.requests}) == 1
    assert deliver(home, [Webhook(receiver.address)], clock.now).sent == 0


def test_lines_that_somebody_damaged_are_passed_over(home, receiver, clock):
    tell(home, "deep")
    (home.root / FILE).write_text('{"channel": "webhook"}\nnot json\n{"at": "x", "channel": 1}\n[1]\n{"torn')
    assert deliver(home, [Webhook(receiver.address)], clock.now).sent == 1
    assert deliver(home, [Webhook(receiver.address)], clock.now).sent == 0
