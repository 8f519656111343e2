"""Several processes, started by torchrun as a user starts them."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from toys import write_set

from tinyaction.data.loader import rank_batches
from tinyaction.training import distributed
from tinyaction.training.peers import Peers

# Evaluates a fixed network, then trains it for an epoch; process 0 writes what came out.
PROGRAM = """
import json, sys, torch
import tinyaction as ta
from tinyaction.training.distributed import gather_in_order, num_processes, rank, start_processes, stop_processes

folder, out, batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
device = start_processes(torch.device("cpu"))
data = ta.find_data(folder)
torch.manual_seed(0)
model = ta.create_model("conv2d", 2, dropout=0.0)
for part in model.modules():  # statistics of the batch would be those of each process's own part of it
    if isinstance(part, torch.nn.BatchNorm2d):
        part.eval()
        part.train = lambda mode=True: None
share = {"rank": rank(), "num_ranks": num_processes()}
arguments = {"clip_len": 2, "size": 16}
val_set = ta.VideoDataset(data.val, ta.eval_pipeline(**arguments), test_mode=True)
val = ta.build_dataloader(val_set, batch_size=2, **share)
train_set = ta.VideoDataset(data.train, ta.eval_pipeline(**arguments))
train = ta.build_dataloader(train_set, batch_size=batch_size, shuffle=True, **share)
seen = [sample.filename for batch in train for sample in batch["data_samples"]]
before = ta.evaluate(model, val, device=device, gather=gather_in_order)
updater = ta.Updater(torch.optim.SGD(model.parameters(), lr=0.1))
if len(sys.argv) > 4:  # a process that runs out of batches early
    if rank() == 1:
        train = list(train)[:-1]
result = ta.train_one_epoch(model, train, updater, device=device)
after = ta.evaluate(model, val, device=device, gather=gather_in_order)
torch.save({"seen": seen, "scores": before.scores, "labels": before.labels, "filenames": before.filenames,
            "loss": before.loss, "after": after.scores, "trained": result.num_videos, "train_loss": result.loss,
            "weights": model.state_dict()}, f"{out}-{rank()}.pt")
stop_processes()
"""


def launch(num_processes, program, *arguments, **options):
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={num_processes}", "--standalone"]
    if num_processes == 1:
        command = [sys.executable]
    result = subprocess.run([*command, program, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                            **options)
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("toys"), num_train=8, num_val=5, num_frames=3)


@pytest.fixture(scope="module")
def outcomes(toys, tmp_path_factory):
    """(processes -> what each wrote): one process with batches of 4, two with batches of 2."""
    import torch

    folder = tmp_path_factory.mktemp("out")
    program = folder / "program.py"
    program.write_text(PROGRAM)
    launch(1, program, toys, folder / "one", 4)
    launch(2, program, toys, folder / "two", 2)
    return {name: [torch.load(path, weights_only=False) for path in sorted(folder.glob(f"{name}-*.pt"))]
            for name in ("one", "two")}


def test_evaluation_is_equal_to_the_bit_and_in_order(outcomes):
    (one,), two = outcomes["one"], outcomes["two"]
    assert len(two) == 2
    for each in two:
        np.testing.assert_array_equal(each["scores"], one["scores"])
        np.testing.assert_array_equal(each["labels"], [0, 1, 0, 1, 0])
        assert each["filenames"] == one["filenames"] and len(one["filenames"]) == 5
        assert each["loss"] == one["loss"]


def test_each_training_video_is_seen_once(outcomes):
    (one,), (first, second) = outcomes["one"], outcomes["two"]
    assert len(first["seen"]) == len(second["seen"]) == 4
    assert sorted(first["seen"] + second["seen"]) == sorted(one["seen"])
    assert first["trained"] == second["trained"] == one["trained"] == 8


def test_two_processes_step_as_one_with_twice_the_batch(outcomes):
    (one,), two = outcomes["one"], outcomes["two"]
    for each in two:
        assert each["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
        for name, weight in each["weights"].items():
            np.testing.assert_allclose(weight.numpy(), one["weights"][name].numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(each["after"], two[0]["after"])


@pytest.mark.slow
def test_a_process_that_runs_out_of_batches_does_not_hang_the_other(toys, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    launch(2, tmp_path / "program.py", toys, tmp_path / "out", 2, "early")
    assert len(list(tmp_path.glob("out-*.pt"))) == 2


@pytest.mark.slow
def test_the_command_has_one_writer(toys, tmp_path):
    script = Path(__file__).parents[2] / "scripts/train.py"
    flags = ["--data", toys, "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 2, "--size", 16, "--device",
             "cpu", "--num-workers", 0]
    output = launch(2, script, *flags).stdout
    assert output.count("epoch   1/1") == 1
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "run/config.json").read_text())["lr_of_the_batch"] == pytest.approx(0.01 * 2 * 2 / 8)


# Trains a network of four numbers on given batches, alone or as one of several processes, in many cases.
STEPS_PROGRAM = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
import torch
from loops import CPU, FakeLoader, batch_of, tiny_model
from tinyaction import Criterion, Updater, create_average, train_one_epoch
from tinyaction.data.loader import rank_batches
from tinyaction.training.distributed import num_processes, rank, start_processes, stop_processes

torch.set_num_threads(1)
start_processes(CPU)
results = {}
ranks = [2, 3] if num_processes() == 1 else [num_processes()]
for R, N, size, accum, early in itertools.product(ranks, [3, 7, 8, 13], [1, 2, 3], [1, 2, 3], [False, True]):
    torch.manual_seed(N)
    videos = [(x, int(x > 0)) for x in torch.randn(N).tolist()]
    parts = [[videos[start:stop] for start, stop in rank_batches(N, size, rank=r, num_ranks=R, even=True)]
             for r in range(R)]
    if early:  # a video that is skipped can take a batch away from one process
        if len(parts[1]) == 1:
            continue
        parts[1] = parts[1][:-1]
    if num_processes() == 1:  # all videos of a step as one batch
        last = max(map(len, parts))
        batches = [sum((video for part in parts for video in part[step : step + accum]), []) for step in
                   range(0, last, accum)]
        accum_here = 1
    else:
        batches, accum_here = parts[rank()], accum
    torch.manual_seed(0)
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=0.01)
    average = create_average(model, 0.9)
    updater = Updater(optimizer, lambda step: 0.5 / (step + 1), 0.4, accum_here, average=average)
    criterion = Criterion(label_smoothing=0.1, class_weights=torch.tensor([0.5, 2.0]))
    out = train_one_epoch(model, FakeLoader(*(batch_of(*batch) for batch in batches)), updater, device=CPU,
                          criterion=criterion)
    momenta = [optimizer.state[weight]["momentum_buffer"].flatten() for weight in model.parameters()]
    tensors = [*model.state_dict().values(), *average.module.state_dict().values()]
    results[R, N, size, accum, early] = torch.cat([*(t.flatten() for t in tensors), *momenta,
                                                   torch.tensor([out.loss, out.top1, out.num_videos])])
torch.save(results, f"{sys.argv[1]}-{rank()}.pt")
stop_processes()
"""


def test_a_step_of_several_processes_is_that_of_one_on_all_their_videos(tmp_path):
    """For uneven batches, accumulation, and a process that runs out of batches: weights, momentum and average."""
    import torch

    (tmp_path / "program.py").write_text(STEPS_PROGRAM)
    outcomes = {}
    for num in (1, 2, 3):
        launch(num, tmp_path / "program.py", tmp_path / str(num), Path(__file__).parents[1])
        outcomes[num] = [torch.load(tmp_path / f"{num}-{rank}.pt") for rank in range(num)]
    (alone,) = outcomes[1]
    assert len(alone) > 100
    for case, expected in alone.items():
        results = [outcome[case] for outcome in outcomes[case[0]]]
        assert all(torch.equal(result, results[0]) for result in results), case
        torch.testing.assert_close(results[0], expected, rtol=1e-6, atol=1e-6, msg=lambda text, c=case: f"{c}: {text}")


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def spread(num_items, batch_size, num_ranks, *, even):
    return [["".join(f"{i:x}" for i in range(start, stop))
             for start, stop in rank_batches(num_items, batch_size, rank=rank, num_ranks=num_ranks, even=even)]
            for rank in range(num_ranks)]


@pytest.mark.parametrize(("num_items", "batch_size", "even", "expected"), [
    (11, 2, False, [["01", "45", "89"], ["23", "67", "a"]]),
    (9, 2, False, [["01", "45", "8"], ["23", "67", ""]]),
    (9, 2, True, [["01", "45"], ["23", "678"]]),
    (11, 2, True, [["01", "45", "89"], ["23", "67", "a"]]),
    (10, 2, True, [["01", "45", "8"], ["23", "67", "9"]]),
    (8, 2, True, [["01", "45"], ["23", "67"]]),
    (2, 8, True, [["0"], ["1"]]),
    (1, 8, False, [["0"], [""]]),
])
def test_who_gets_which_batch(num_items, batch_size, even, expected):
    assert spread(num_items, batch_size, 2, even=even) == expected


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_every_item_once_and_equally_many_batches(num_ranks, even):
    for batch_size in range(1, 6):
        for num_items in range(num_ranks, 40):
            parts = [rank_batches(num_items, batch_size, rank=rank, num_ranks=num_ranks, even=even)
                     for rank in range(num_ranks)]
            items = sorted(i for part in parts for start, stop in part for i in range(start, stop))
            assert items == [*range(num_items)]
            assert len({len(part) for part in parts}) == 1
            if even:
                assert all(1 <= stop - start <= batch_size + 1 for part in parts for start, stop in part)


def test_too_few_videos_for_the_processes():
    with pytest.raises(ValueError, match="2 training videos are too few for 3 processes"):
        rank_batches(2, 1, rank=0, num_ranks=3, even=True)


def test_one_process_needs_no_torchrun():
    assert (distributed.rank(), distributed.num_processes()) == (0, 1)
    assert distributed.gather_in_order(["a", "b"]) == ["a", "b"]
    assert distributed.all_reduce_sum(1, 2.5) == [1, 2.5]
    assert distributed.broadcast_from_main("x") == distributed.main_process_first(lambda: "x") == "x"


def test_a_process_ends_whole_while_it_gives_signs_of_life():
    """Python that ends while a thread is within the store aborts: a training that was done failed for torchrun."""
    code = ("import threading, time\nimport torch.distributed as dist\nfrom datetime import timedelta\n"
            "from tinyaction.training.peers import Peers\n"
            "store = dist.TCPStore('127.0.0.1', 0, 1, True, timedelta(seconds=20))\n"
            "peers = [Peers(store, 0, 1) for _ in range(8)]\n"
            "def tell():\n    while True:\n        for one in peers:\n            one.tell('here')\n"
            "threading.Thread(target=tell, daemon=True).start()\ntime.sleep(0.3)\n")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("local_rank", "speaks"), [(0, True), (1, False)])
def test_one_process_of_each_machine_speaks_where_the_store_does_not_answer(local_rank, speaks, monkeypatch):
    """The cable between two machines is cut: nobody else would say on the second one what happened."""
    class Silent:
        def set(self, *_):
            raise RuntimeError("connection lost")
        compare_set = set
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    one = Peers(Silent(), 2 + local_rank, 4)
    assert one.fail("torchrun gave no sign of life") is speaks
    one.close()


def test_each_start_has_a_name_of_its_own_in_one_store():
    """Of 3, of 2 and of 3 processes again, as torchrun starts them where a machine leaves and comes back."""
    from torch.distributed import HashStore

    store, names = HashStore(), []
    for num in (3, 2, 3):
        with ThreadPoolExecutor(num) as pool:
            agreed = set(pool.map(lambda rank, num=num: distributed.agree_on_attempt(store, rank, num), range(num)))
        assert len(agreed) == 1
        names += agreed
    assert len(set(names)) == 3
    with pytest.raises(ChildProcessError, match=r"^rank 1 did not begin within 0\.1 s$"):
        distributed.agree_on_attempt(store, 0, 2, limit_seconds=0.1)
