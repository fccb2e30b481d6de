"""The `odin` command inside the test's process, as its `main` runs it: exit status, standard output, standard error."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from odin_core import cli
from odin_core.home import Home


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out, parse_constant=_not_json)

    @property
    def mistake(self) -> str:
        """The one line that a user's mistake ends in."""
        assert (self.status, self.out) == (2, ""), self
        assert self.err.startswith("odin: ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()


def odin(*words: object, home: Home | Path | None = None) -> Said:
    at = () if home is None else ("--home", str(home.root if isinstance(home, Home) else home))
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["odin", *map(str, words), *at]),
    ):
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return Said(status, out.getvalue(), err.getvalue())


def _not_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
