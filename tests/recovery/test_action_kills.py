"""An import of corporate actions or fundamentals that is killed: no half partition, and the same command heals it."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from odincommand import odin

DIES = """
import os, sys

left, replace = int(sys.argv[1]), os.replace

def dies_half_way(source, target):
    global left
    left -= 1
    if left == 0:
        with open(source, "r+b") as file:
            file.truncate(os.path.getsize(source) // 2)
        os._exit(9)
    replace(source, target)

os.replace = dies_half_way
from odin_core.cli import main
sys.argv = ["odin", *sys.argv[2:]]
main()
"""
BEFORE = {
    "actions": ["symbol,ex_date,kind,ratio,amount", "A,2022-03-01,dividend,,3", "A,2022-06-01,split,2,"],
    "fundamentals": ["symbol,known_at,figure,value", "A,2022-03-01,pe,20", "B,2022-06-01,pe,30"],
}
AFTER = {  # corrects, adds and refuses
    "actions": ["symbol,ex_date,kind,ratio,amount", "A,2022-03-01,dividend,,4", "B,2022-04-01,split,5,",
                "B,2022-06-01,dividend,,1", "B,someday,dividend,,1"],
    "fundamentals": ["symbol,known_at,figure,value", "A,2022-03-01,pe,21", "B,2022-04-01,pe,", "C,2022-06-01,pe,1",
                     "C,someday,pe,1"],
}  # fmt: skip


def files(home: Path) -> dict[str, bytes]:
    return {str(p.relative_to(home)): p.read_bytes() for p in sorted((home / "lake").rglob("*.parquet"))}


@pytest.mark.parametrize("what", ["actions", "fundamentals"])
def test_a_kill_at_the_first_a_middle_or_the_last_write_leaves_whole_files_and_the_same_command_the_same_bytes(
    tmp_path: Path, what: str
):
    before, after = tmp_path / "before.csv", tmp_path / "after.csv"
    before.write_text("\n".join(BEFORE[what]) + "\n")
    after.write_text("\n".join(AFTER[what]) + "\n")

    def bring(home: Path, path: Path) -> None:
        assert odin("data", what, path, "--market", "nse", home=home).status == 0

    bring(tmp_path / "whole", before)
    first = files(tmp_path / "whole")
    bring(tmp_path / "whole", after)
    whole = files(tmp_path / "whole")
    writes = sum(first.get(name) != content for name, content in whole.items())
    assert writes >= 4
    for at in (1, 3, writes):
        home = tmp_path / f"killed-{at}"
        bring(home, before)
        words = ["data", what, str(after), "--market", "nse", "--home", str(home)]
        died = subprocess.run([sys.executable, "-c", DIES, str(at), *words], capture_output=True, check=False)
        assert died.returncode == 9, died.stderr
        for name in files(home):
            assert pl.read_parquet(home / name).width > 0
        bring(home, after)
        assert files(home) == whole
