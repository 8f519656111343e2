"""--cluster: a Ray cluster of two nodes on this machine prints and writes what one machine does."""

import shutil
import sys
from types import SimpleNamespace

import pytest
from toys import save_toy, write_set

from tinyaction.cli import main

JOBS = {
    "check": "check --data data --num-workers 1 --clip-len 2 --write-clean",
    "store": "store --data data --num-workers 1 --short-side 16 --out store --on-error skip",
    "embed": "embed data/train data/val --checkpoint model.pt --device cpu --num-workers 1 --out features.npz "
             "--skip-errors",
    "audit": "audit --data data --model conv2d --weights model.pt --size 16 --clip-len 2 --num-workers 1 --out page",
    "predict": "predict data/train data/val --checkpoint model.pt --device cpu --csv scores.csv --json scores.json",
}


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="--cluster needs the extra cluster")
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 150_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    cluster.add_second = lambda: cluster.add_node(**small)
    cluster.second = cluster.add_second()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_set(tmp_path / "data", num_train=14, num_val=6)
    (tmp_path / "data" / "val" / "clip 1.mp4").write_bytes(b"no video")
    save_toy(tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".check.jsonl" and "parts" not in path.parts}


def last_lines(capsys):
    """Without Ray's own, which it prints where a node is lost."""
    return [line for line in capsys.readouterr().out.splitlines() if "(raylet)" not in line][-2:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray
@pytest.mark.parametrize("name", JOBS)
def test_two_nodes_are_one_machine(here, cluster, capsys, name):
    before = files_of(here)
    code = main([*JOBS[name].split(), "--cluster", "auto", "--parts", "parts"])
    spread = code, last_lines(capsys)
    written = files_of(here)
    for path in written.keys() - before.keys():
        (here / path).unlink()
    shutil.rmtree(here / "store", ignore_errors=True)
    code = main(JOBS[name].split())
    assert spread == (code, last_lines(capsys)) and code in (0, 1, 2)
    assert files_of(here) == written and len(written) > len(before)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", JOBS)
def test_a_node_that_is_lost_costs_only_its_part(here, cluster, capsys, monkeypatch, name):
    from tinyaction.prepare import parts

    cluster.second = cluster.second or cluster.add_second()
    lines = []

    def add_line(path, content, add=parts.add_line):
        add(path, content)
        lines.append(content)
        if len(lines) == 5:                                            # the header, and four videos
            cluster.remove_node(cluster.second)
            cluster.second = None

    monkeypatch.setattr(parts, "add_line", add_line)
    monkeypatch.setattr("tinyaction.prepare.cluster.VIDEOS_PER_BLOCK", 2)
    test_two_nodes_are_one_machine(here, cluster, capsys, name)
    assert cluster.second is None and len((here / "parts" / "1-of-1.jsonl").read_text().splitlines()) == 1 + 20


def test_ray_that_is_missing_or_old(here, monkeypatch, capsys):
    command = [*JOBS["predict"].split(), "--cluster", "auto"]
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "--cluster needs Ray (" in error and "pip install 'tinyaction[cluster]'" in error and error.count("\n") == 1
    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="2.9.3"))
    assert main(command) == 2
    assert "--cluster needs Ray 2.30 or newer, this is 2.9.3; update it on all machines" in capsys.readouterr().err

    def refuse(**arguments):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.40.0\nThis one: 2.60")

    other = SimpleNamespace(__version__="2.60.0", is_initialized=lambda: False, init=refuse)
    monkeypatch.setitem(sys.modules, "ray", other)
    assert main(command) == 2
    assert ("no Ray cluster can be used there (Version mismatch: The cluster was started with: Ray: 2.40.0 This "
            "one: 2.60); start one") in capsys.readouterr().err
    assert main([*JOBS["predict"].split(), "--cluster", "nowhere:1", "--parts", "parts"]) == 2
    assert "--cluster is nowhere:1; it must be auto or ray://HOST:PORT" in capsys.readouterr().err
    assert main([*command, "--part", "1/2"]) == 2
    assert "--part and --cluster exclude each other" in capsys.readouterr().err
