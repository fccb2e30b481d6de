"""What tests of delivery share: a receiver of webhooks, an alert to tell, ports that nobody listens on."""

import json
import socket
from datetime import UTC, datetime

from fakes.serving import FakeServer, Reply, Request, instead

from odin_core.home import Home
from odin_core.monitoring.alerts import raise_alert

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
