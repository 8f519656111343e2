"""--model auto: the guide's network for generated sets, a pretrained one for own clips, and no silence without it."""

import json
import socket
import time

import pytest
import torch
from toys import write_set

import tinyaction as ta
from tinyaction.models import hub
from tinyaction.models.create import published_card
from tinyaction.training import auto, probe_run
from tinyaction.training.auto import CHOICES, choose_model, fetch_problem, find_choice
from tinyaction.training.build import NO_WEIGHTS
from tinyaction.training.config import RunConfig


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("bars") / "bars", num_train=4, num_val=2)


@pytest.fixture
def own(generated, tmp_path):
    """The same clips without the note that they are generated."""
    folder = tmp_path / "own"
    folder.mkdir()
    for path in generated.iterdir():
        if path.name != "README.txt":
            (folder / path.name).symlink_to(path)
    return folder


def test_the_guides_network_for_generated_sets_and_the_tutorials(generated, tmp_path):
    for folder in (generated, tmp_path / "kinetics400_tiny"):          # the latter is not there yet
        chosen = choose_model(RunConfig(str(folder)))
        assert (chosen.model, chosen.weights, chosen.method) == ("conv2d", "", "finetune")
        assert chosen == RunConfig(str(folder), model="conv2d")


@pytest.mark.parametrize("method", ["probe-then-finetune", "probe", "finetune"])
def test_a_folder_that_is_used_is_refused_before_anything_is_fetched(method, own, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    monkeypatch.setattr(auto, "fetch_problem", lambda choice: pytest.fail("fetched"))
    with pytest.raises(ValueError, match="run: exists already and is not empty; name another folder with --out"):
        ta.train(RunConfig(str(own), out=str(tmp_path / "run"), method=method))


@pytest.mark.parametrize(("device", "num_clips", "model"), [
    ("cpu", 20, "x3d_s"), ("cpu", 1000, "x3d_s"), ("cpu", 1001, "x3d_xs"), ("mps", 20, "x3d_s"),
    ("cuda", 20, "mvit_v2_s"), ("cuda", 100_000, "mvit_v2_s"),
])
def test_what_is_right_for_clips_and_device(device, num_clips, model):
    assert find_choice(device, num_clips).model == model


def test_every_choice_has_weights_and_takes_its_default_clips():
    from tinyaction.models import check_input
    from tinyaction.models.weights import find_published

    for choice in CHOICES:
        config = RunConfig("d", model=choice.model, weights=choice.weights)
        check_input(config.model, clip_len=config.clip_len, size=config.size)
        assert config.method == "probe-then-finetune"
        card = published_card(choice.model, choice.weights)
        accuracy = card.top1 if card else find_published(choice.model, choice.weights).meta["_metrics"][
            "Kinetics-400"]["acc@1"]
        assert f"{accuracy:.1f} %" in choice.reason


def test_own_clips_get_the_choice_whose_file_is_there(own, tmp_path, monkeypatch):
    """A file in torch.hub's folder (TORCH_HOME) is enough; flags that were given stay."""
    monkeypatch.setattr(auto, "fetch_file", hub.fetch_file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "X3D_S.pyth").write_bytes(b"")
    lines = []
    chosen = choose_model(RunConfig(str(own), size=64, seed=3, device="cpu"), on_line=lines.append)
    assert (chosen.model, chosen.weights) == ("x3d_s", "kinetics")
    assert (chosen.size, chosen.clip_len, chosen.seed) == (64, 13, 3)
    assert lines == ["--model auto: x3d_s with kinetics weights (73.3 % on Kinetics-400, 2 GFLOPs a clip: for a CPU; "
                     "4 training clips)"]


@pytest.mark.parametrize("method", [None, "probe"])
def test_without_the_weights_the_run_says_so_everywhere(method, own, tmp_path, monkeypatch):
    run, lines = tmp_path / "run", []
    ta.train(RunConfig(str(own), method=method, epochs=1, clip_len=2, size=16, num_workers=0, device="cpu",
                       out=str(run)), on_line=lines.append)
    assert "X3D_S.pyth is not fetched in tests. conv2d is trained from scratch instead" in lines[0]
    config = json.loads((run / "config.json").read_text())
    assert (config["model"], config["weights"]) == ("conv2d", "none")
    log = (run / "log.txt").read_text()
    assert log.count(probe_run.NO_WEIGHTS if method == "probe" else NO_WEIGHTS) >= 1
    assert "conv2d, weights: none" in (run / "report.html").read_text()
    again = RunConfig(**{**ta.Checkpoint.load(run).config, "out": ""})
    assert again.pretrained == "" and again.model == "conv2d"


def test_an_address_that_does_not_answer_is_given_up_soon(tmp_path, monkeypatch):
    """A port on this machine that takes connections and stays silent."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub, "SECONDS_TO_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/X3D_S.pyth"
        monkeypatch.setattr(auto, "fetch_file", lambda _: hub.fetch_file(address))
        start = time.monotonic()
        assert "could not be fetched" in fetch_problem(CHOICES[1])
        assert time.monotonic() - start < 10


def test_flags_of_auto():
    with pytest.raises(ValueError, match="--weights is 'imagenet', but --model auto brings its own; name the model"):
        RunConfig("d", weights="imagenet")
    with pytest.raises(ValueError, match="--lr is -1.0; it must be above 0"):
        RunConfig("d", lr=-1.0)
    assert RunConfig("d", model="conv2d", weights="none").method == "finetune"
