"""Telling a decision service that the registry's pointer moved, so that it loads the new champion in time."""

from collections.abc import Mapping
from typing import Final

SERVICE: Final = "ODIN_SERVICE_URL"
SECONDS: Final = 5.0


def refresh_service(secrets: Mapping[str, str], *, market: str, version: str | None) -> str:
    """POST {"market", "version"} to <ODIN_SERVICE_URL>/refresh, where one is set. What came of it, in words: a service
    that does not answer looks at the registry by itself, so nothing is raised."""
    url = secrets.get(SERVICE)
    if not url:
        return f"no decision service is set ({SERVICE}), so none was told"
    import requests

    try:
        told = {"market": market, "version": version}
        answer = requests.post(f"{url.rstrip('/')}/refresh", json=told, timeout=SECONDS)
        answer.raise_for_status()
    except requests.RequestException as error:
        return f"the decision service was not told: {type(error).__name__}"
    return "the decision service was told"
