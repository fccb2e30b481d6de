import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from odin_core.errors import OdinError
from odin_core.home import Home, HomeBusy, WrongHome, open_home

HOLD = """
import sys
from odin_core.home import open_home
with open_home(sys.argv[1]).writer("holding for a test"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "home")


@pytest.fixture
def holder(home: Home):
    """Another process that holds the writer lock of `home` until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_missing_folder_becomes_a_home_with_its_parents(tmp_path: Path):
    home = open_home(tmp_path / "a" / "b")
    assert json.loads((home.root / "odin.json").read_text()) == {"project": "odin", "format": 1}


def test_an_empty_folder_becomes_a_home(tmp_path: Path):
    assert open_home(tmp_path).root == tmp_path
    assert open_home(tmp_path, create=False).root == tmp_path


@pytest.mark.parametrize("leftover", ["README.md", ".gitignore", ".odin.json.123.tmp"])
def test_a_folder_with_only_what_git_or_a_killed_start_left_becomes_a_home(tmp_path: Path, leftover: str):
    (tmp_path / leftover).write_text("x")
    open_home(tmp_path)
    assert (tmp_path / "odin.json").is_file()


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(WrongHome, match=r"thesis\.tex.*empty or a new directory"):
        open_home(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_file_is_refused_as_a_home(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WrongHome, match="it is a file"):
        open_home(tmp_path / "file")
    with pytest.raises(WrongHome, match="Not a directory"):
        open_home(tmp_path / "file" / "below")


def test_a_place_that_cannot_be_written_is_refused():
    with pytest.raises(WrongHome, match="may write"):
        open_home("/proc/odin")


def test_a_home_that_may_only_be_read_is_refused_for_writing_and_fine_for_reading(home: Home, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert open_home(home.root, create=False) == home
    with pytest.raises(WrongHome, match="may not write"):
        open_home(home.root)


def test_a_reader_does_not_create_a_home(tmp_path: Path):
    with pytest.raises(WrongHome, match="odin bootstrap"):
        open_home(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "says"), [('{"format": 2}', "format 2"), ("{", "damaged"), ("[]", "damaged"), ("{}", "damaged")]
)
def test_a_home_of_another_format_is_refused(tmp_path: Path, text: str, says: str):
    (tmp_path / "odin.json").write_text(text)
    with pytest.raises(WrongHome, match=says):
        open_home(tmp_path)


def test_every_path_lies_under_the_root(home: Home):
    paths = [home.lake("nse").root, home.lives, home.current("nse"), home.dagster, home.catalog, home.reports]
    assert all(path.is_relative_to(home.root) for path in paths)
    assert home.lake("nse").root == home.root / "lake" / "nse"
    assert home.current("nse") == home.root / "lives" / "current" / "nse"


def test_a_relative_home_stays_where_it_was_when_the_process_moves(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_home("data").root == tmp_path / "data"


def test_writer_blocks_nest_within_a_process_and_a_thread(home: Home):
    def nested():
        with home.writer("the thread", wait=0):
            pass

    with home.writer("outer"), home.writer("inner", wait=0):
        thread = threading.Thread(target=nested)
        thread.start()
        thread.join()
    with home.writer("afterwards", wait=0):
        assert "afterwards" in (home.root / "writer.lock").read_text()
    assert (home.root / "writer.lock").read_text() == ""


def test_a_second_writer_is_told_who_the_first_is(home: Home, holder: subprocess.Popen):
    with pytest.raises(HomeBusy) as caught, home.writer("second", wait=0.05):
        pass
    assert isinstance(caught.value, OdinError)
    assert f"process {holder.pid} (holding for a test, since 2" in str(caught.value)


def test_a_second_writer_waits_for_the_first_to_end(home: Home, holder: subprocess.Popen):
    assert holder.stdin
    threading.Timer(0.2, holder.stdin.close).start()
    with home.writer("second", wait=10):
        assert holder.wait(10) == 0


def test_a_killed_writer_leaves_the_home_free(home: Home, holder: subprocess.Popen):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with home.writer("second", wait=0):
        pass


def test_a_failing_block_frees_the_home(home: Home):
    with pytest.raises(ZeroDivisionError), home.writer("failing"):
        _ = 1 / 0
    again = "from odin_core.home import open_home; import sys; open_home(sys.argv[1]).writer('x', wait=0).__enter__()"
    subprocess.run([sys.executable, "-c", again, str(home.root)], check=True)
