"""Delivery to a real web server and a real mail server on this machine, which refuse, hang and break."""

import json
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from alertcases import SECRET, START, Receiver, dead_port, on_disk, status, tell
from fakes.serving import Clock, Reply, honest, reset

from odin_core.home import Home, open_home
from odin_core.monitoring.alerts import Alert, alerts, raise_alert
from odin_core.monitoring.channels import Webhook, channels
from odin_core.monitoring.delivery import FILE, MOST, Delivery, deliver, due, try_out, undelivered


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
        done = deliver(home, [Webhook(hanging.address, "slow"), Webhook(receiver.address)], clock.now, seconds=2)
    assert [(line["channel"], line["outcome"]) for line in done.lines] == [("slow", "failed"), ("webhook", "delivered")]
    assert done.lines[0]["error"] == "no answer within 2 s"


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
    before = len(receiver.requests)
    down = deliver(home, [Webhook(receiver.address)], clock.now)
    assert len(receiver.requests) == before + 1, "the second one was not tried"
    assert [line["outcome"] for line in down.lines] == ["failed", "failed"]
    assert due(home, [Webhook(receiver.address)], clock.now()) == 0, "and it waits too"


@pytest.mark.parametrize("count", [1, MOST * 2])
def test_a_channel_that_is_down_for_a_day_is_tried_as_often_for_many_alerts_as_for_one(home, clock, count: int):
    """Somebody asks every minute whether there is anything to do, and starts a process each time that there is."""
    for i in range(count):
        tell(home, f"number {i}", START + timedelta(seconds=i))
    using, runs = [Webhook(f"http://127.0.0.1:{dead_port()}/x/{SECRET}")], 0
    clock.at = START + timedelta(minutes=1)
    while clock.at < START + timedelta(days=1):
        if due(home, using, clock.now()):
            deliver(home, using, clock.now)
            runs += 1
        clock.at += timedelta(minutes=1)
    assert runs == 12
    clock.at = START + timedelta(days=2)
    deliver(home, using, clock.now)
    assert undelivered(home, using, clock.now()) == 0, "given up"


def test_when_the_channel_is_back_everything_that_waited_arrives(home, receiver, clock):
    for i in range(5):
        tell(home, f"number {i}", START + timedelta(seconds=i))
    receiver.fail(reset)
    using = [Webhook(receiver.address)]
    assert deliver(home, using, clock.now).failed == 5
    clock.at += timedelta(minutes=1)
    assert deliver(home, using, clock.now).sent == 5
    assert [text[-8:] for text in receiver.texts[1:]] == [f"number {i}" for i in range(5)]


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


def test_a_storm_is_a_bounded_number_of_messages_and_none_is_lost(home, receiver, clock):
    for i in range(MOST + 30):
        tell(home, f"number {i}", START + timedelta(seconds=i))
    raise_alert(home, at=START + timedelta(hours=1), market="demo", rule="drift", text="worst", severity="critical")
    done = deliver(home, [Webhook(receiver.address)], clock.now)
    assert (done.sent, done.waiting, len(receiver.requests)) == (MOST + 31, 0, MOST + 1)
    said = [text.split("): ", 1)[1] for text in receiver.texts]
    assert said[: MOST - 1] == [f"number {i}" for i in range(MOST - 1)]
    assert said[MOST - 1] == "worst", "the most severe is told by itself, however late it came"
    assert said[MOST] == "31 more alerts, see `odin alerts list`: 31 × demo drawdown"
    assert deliver(home, [Webhook(receiver.address)], clock.now).sent == 0


def test_a_summary_that_fails_is_tried_again_whole(home, receiver, clock):
    for i in range(MOST + 5):
        tell(home, f"number {i}", START + timedelta(seconds=i))
    receiver.fail(*[honest] * MOST, status(500))
    using = [Webhook(receiver.address)]
    first = deliver(home, using, clock.now)
    clock.at += timedelta(minutes=2)
    second = deliver(home, using, clock.now)
    assert (first.sent, first.failed, second.sent, second.waiting) == (MOST, 5, 5, 0)


def test_nothing_is_due_while_all_that_is_owed_waits(home, receiver, clock):
    using = [Webhook(receiver.address)]
    tell(home, "deep")
    assert (due(home, using, clock.now()), undelivered(home, using, clock.now())) == (1, 1)
    receiver.fail(status(500))
    deliver(home, using, clock.now)
    assert (due(home, using, clock.now()), undelivered(home, using, clock.now())) == (0, 1)
    clock.at += timedelta(minutes=1)
    assert due(home, using, clock.now()) == 1
    assert due(home, [], clock.now()) == 0


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
