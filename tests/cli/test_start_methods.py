"""The scripts where worker processes are not forked: macOS, Windows, and Linux from Python 3.14."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import write_set

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.slow  # each process imports torch
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_commands_with_workers(method, tmp_path):
    start = f"import multiprocessing\nmultiprocessing.set_start_method({method!r})\n"
    (tmp_path / "sitecustomize.py").write_text(start)
    bars, run = write_set(tmp_path / "bars"), tmp_path / "run"

    def output(name: str, *words: object) -> str:
        command = [sys.executable, SCRIPTS / f"{name}.py", *map(str, words)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300,
                                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
        assert result.returncode == 0, f"{name}: {result.stderr}"
        return result.stdout

    trained = output("train", "--data", bars, "--out", run, "--size", 16, "--clip-len", 2, "--epochs", 1, "--device",
                     "cpu", "--num-workers", 2)
    assert trained.count("best epoch 1 of 1") == 1
    assert " over 4 videos" in output("evaluate", "--data", bars, "--checkpoint", run, "--num-workers", 1)
    assert "12 videos stored" in output("store", "--data", bars, "--out", tmp_path / "stored", "--num-workers", 2)
    assert "12 videos" in output("check", "--data", bars)
