"""Secrets: read from the environment or a `.env` file by whoever starts ODIN, handed down as values, never written.

The command line and the Dagster resource call `read_secrets` at the border; nothing deeper knows where a secret came
from. `redacted` takes them out of whatever is about to be shown."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

ENV_FILE = ".env"
HIDDEN = "[secret]"
SHORTEST = 4  # a shorter value would blank out ordinary words


def read_secrets(environment: Mapping[str, str], env_file: Path = Path(ENV_FILE)) -> dict[str, str]:
    """What sources may ask for: the lines of `env_file`, where it exists, overridden by the environment."""
    from dotenv import dotenv_values  # 20 ms

    given = dotenv_values(env_file) if env_file.is_file() else {}
    return {name: value for name, value in given.items() if value} | dict(environment)


def redacted(text: str, secrets: Mapping[str, str], names: Iterable[str]) -> str:
    """`text` with the values of the secrets of these names replaced, longest first; of an address also its password."""
    given = [secrets[name] for name in names if name in secrets]
    values = {value for one in given for value in (one, *_passwords(one)) if len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return text


def _passwords(address: str) -> tuple[str, ...]:
    """The password in an address, as it stands there and decoded; nothing where there is none, or where it is only the
    user's name again: `odin:odin@localhost` would blank out every command in a text."""
    try:
        parts = urlsplit(address)
        user, password = parts.username, parts.password
    except ValueError:
        return ()
    return (password, unquote(password)) if password and password != user else ()
