"""The commands, as a user gives them: a run that explains itself, and one sentence for whatever is wrong."""

import csv
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import CLASSES, write_clip, write_set

import tinyaction.cli
from tinyaction import Checkpoint
from tinyaction.cli import COMMANDS, errors_to_exit_code, main
from tinyaction.cli.evaluate import main as evaluate_main
from tinyaction.cli.predict import main as predict_main
from tinyaction.cli.progress import ProgressLine
from tinyaction.cli.train import main as train_main
from tinyaction.data.loader import EpochSampler
from tinyaction.prepare.synthetic import STAND_IN_TITLE
from tinyaction.results.evaluation import Evaluation, evaluate
from tinyaction.results.progress import Progress
from tinyaction.results.summary import result_lines
from tinyaction.training.build import STAND_IN

SMALL = ["--epochs", "2", "--size", "32", "--clip-len", "4", "--num-workers", "0", "--device", "cpu", "--lr", "0.02"]
COLUMNS = "epoch,lr,train_loss,train_top1,val_loss,val_top1,val_mean_class,data_seconds,compute_seconds"


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    """The guide's layout. Frames of 10 and, in training, of 2: shorter than the clip, and no error."""
    folder = write_set(tmp_path_factory.mktemp("data") / "my bars", num_train=8, num_val=4)
    for number in (0, 3):
        write_clip(folder / "train" / f"clip {number}.mp4", number % 2, seed=number, num_frames=2)
    return folder


@pytest.fixture(scope="module")
def run(bars, tmp_path_factory) -> tuple[Path, str]:
    """(folder, what was printed) of a run of two epochs."""
    out = tmp_path_factory.mktemp("runs") / "bars run"
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words)) + "\n"))
        code = train_main(["--data", str(bars), "--out", str(out), *SMALL, "--train-clips", "2", "--num-clips", "2"])
    assert code == 0
    return out, "".join(printed)


def text_of(result_or_capsys) -> tuple[str, str]:
    captured = result_or_capsys.readouterr()
    return captured.out, captured.err


# ---- a run ---------------------------------------------------------------------------------------------------------


def test_defect_8_a_run_is_saved(run):
    out, _ = run
    assert {path.name for path in out.iterdir()} >= {"best.pt", "config.json", "last.pt", "log.txt", "metrics.csv"}
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]  # nothing temporary


def test_metrics_csv(run):
    out, _ = run
    lines = (out / "metrics.csv").read_text().splitlines()
    assert lines[0] == COLUMNS  # two classes: no top-5
    first, second = ({name: float(value) for name, value in row.items()} for row in csv.DictReader(lines))
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert first["lr"] == pytest.approx(0.02)  # the warm-up ends with the first epoch's one step
    assert second["lr"] == pytest.approx(0.02)  # where the cosine begins
    assert second["train_loss"] < first["train_loss"]
    for row in (first, second):
        assert 0 <= row["train_top1"] <= 1
        assert row["val_top1"] in (0, 1 / 4, 2 / 4, 3 / 4, 1)
        assert min(row["data_seconds"], row["compute_seconds"]) > 0


def test_config_json_says_what_was_run(run, bars):
    out, _ = run
    config = json.loads((out / "config.json").read_text())
    expected = {"data": str(bars), "model": "conv2d", "epochs": 2, "batch_size": 8, "lr": 0.02, "size": 32,
                "clip_len": 4, "num_clips": 2, "train_clips": 2, "seed": 0, "optimizer": "sgd", "out": str(out),
                "class_names": list(CLASSES), "stand_in": False, "device_used": "cpu", "lr_of_the_batch": 0.02,
                "num_train": 8, "num_val": 4}
    assert {name: config[name] for name in expected} == expected
    assert config["versions"]["torch"] == str(torch.__version__)


def test_the_log_is_what_was_printed(run):
    out, printed = run
    assert (out / "log.txt").read_text() == printed
    lines = printed.splitlines()
    assert lines[0].startswith("8 training and 4 validation videos of 2 classes in ")
    assert len(re.findall(r"^epoch +\d", printed, re.MULTILINE)) == 2
    assert all(len(line) <= 80 for line in lines if line.startswith(("epoch", "best", "accuracy", "  ")))


def test_the_checkpoints_are_of_their_epochs(run):
    out, _ = run
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    best_row = max(rows, key=lambda row: (float(row["val_top1"]), -float(row["val_loss"])))
    last, best = Checkpoint.load(out / "last.pt"), Checkpoint.load(out / "best.pt")
    assert last.epoch == 2
    assert best.epoch == int(best_row["epoch"])
    for checkpoint in (last, best):
        row = rows[checkpoint.epoch - 1]
        assert checkpoint.metrics == pytest.approx({name: float(value) for name, value in row.items()}, rel=1e-5)
        assert checkpoint.class_names == list(CLASSES)
        assert checkpoint.model.items() >= {"name": "conv2d", "num_classes": 2}.items()
        assert checkpoint.eval_pipeline == {"clip_len": 4, "size": 32, "num_clips": 2}
        assert checkpoint.config["train_clips"] == 2
        assert checkpoint.stand_in is False


def printed_command(printed: str, name: str) -> list[str]:
    (line,) = [line for line in printed.splitlines() if line.startswith(f"{name}:")]
    words = shlex.split(line.split(":", 1)[1])
    assert words[:2] == ["tinyaction", name]
    return words[1:]


def test_the_printed_evaluate_command_gives_the_printed_accuracy(run, capsys):
    _, printed = run
    assert main(printed_command(printed, "evaluate")) == 0
    out, err = text_of(capsys)
    assert err == ""
    result = [line for line in printed.splitlines() if line.startswith(("accuracy", "confusion", "  "))]
    assert out.splitlines() == result
    assert result[0].startswith("accuracy ")
    assert result[1] == "confusion matrix (row = true class, column = predicted class):"


def test_the_printed_predict_command_works(run, capsys):
    _, printed = run
    words = printed_command(printed, "predict")
    assert main(words) == 0
    out, err = text_of(capsys)
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == words[1]
    assert sum(float(line.split()[0]) for line in lines[1:]) == pytest.approx(1, abs=0.002)
    assert {line.split()[-1] for line in lines[1:]} == set(CLASSES)


def test_the_printed_explain_command_works(run, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(printed_command(run[1], "explain")) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".mp4", ".png"]


def test_evaluate_takes_the_folder_of_a_run(run, bars, capsys):
    argv = ["--data", str(bars), "--num-workers", "0", "--checkpoint"]
    assert evaluate_main([*argv, str(run[0])]) == evaluate_main([*argv, str(run[0] / "best.pt")]) == 0
    lines = text_of(capsys)[0].splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_evaluate_on_the_training_videos_and_with_other_clips(run, bars, capsys, monkeypatch):
    shapes = []

    def spy(model, loader, **arguments):
        shapes.extend(tuple(batch["inputs"].shape) for batch in loader)
        return evaluate(model, loader, **arguments)

    monkeypatch.setattr("tinyaction.cli.evaluate.evaluate", spy)
    argv = ["--data", str(bars), "--checkpoint", str(run[0] / "last.pt"), "--num-workers", "0"]
    assert evaluate_main([*argv, "--split", "train", "--num-clips", "3", "--batch-size", "5",
                          "--video-timeout", "60"]) == 0
    assert shapes == [(5, 3, 3, 4, 32, 32), (3, 3, 3, 4, 32, 32)]
    assert " over 8 videos" in text_of(capsys)[0]


def test_each_flag_has_its_effect(bars, tmp_path, monkeypatch):
    """What the loop is given. The rate is for batches of 8, so half of it for 4; an epoch has 8 / 4 steps."""
    given = {}

    class EnoughError(Exception):
        pass

    def take(model, train_loader, val_loader, updater, *, num_epochs, **_):
        given.update(train=train_loader, val=val_loader, group=updater.optimizer.param_groups[0],
                     num_epochs=num_epochs, rates=[updater.lr_at(step) for step in range(6)],
                     clip=updater.clip_grad_norm, kind=type(updater.optimizer))
        raise EnoughError

    monkeypatch.setattr("tinyaction.training.run.fit", take)
    with pytest.raises(EnoughError):
        train_main(["--data", str(bars), "--out", str(tmp_path / "run"), *SMALL, *(
            "--epochs 3 --batch-size 4 --lr 0.2 --optimizer adamw --weight-decay 0.25 --warmup-epochs 1 "
            "--clip-grad-norm 3 --seed 7 --train-clips 3 --num-clips 2 --flip 0").split()])
    assert not (tmp_path / "run").exists()
    assert (given["num_epochs"], given["clip"], given["kind"]) == (3, 3, torch.optim.AdamW)
    assert (given["group"]["lr"], given["group"]["weight_decay"]) == (0.1, 0.25)
    cosine = [0.1 * (1 + math.cos(math.pi * done / 4)) / 2 for done in range(4)]
    assert given["rates"] == pytest.approx([0.05, 0.1, *cosine])

    orders = []
    for epoch in (0, 1):
        given["train"].set_epoch(epoch)
        batches = list(given["train"])
        assert [tuple(batch["inputs"].shape) for batch in batches] == [(4, 3, 3, 4, 32, 32)] * 2
        orders.append([Path(sample.filename).name for batch in batches for sample in batch["data_samples"]])
        expected = EpochSampler(8, shuffle=True, seed=7)
        expected.epoch = epoch
        assert orders[-1] == [f"clip {index}.mp4" for _, index in expected]
    assert orders[0] != orders[1]
    (batch,) = given["val"]
    assert batch["inputs"].shape == (4, 2, 3, 4, 32, 32)
    assert [Path(sample.filename).name for sample in batch["data_samples"]] == [f"clip {i}.mp4" for i in range(4)]
    assert given["train"].loader.dataset.seed == 7
    assert "VideoFlip(flip_ratio=0.0, " in repr(given["train"].loader.dataset.pipeline)


def test_the_same_seed_gives_the_same_run_whatever_the_workers(run, bars, tmp_path, capsys):
    """As a program of its own this time, with a worker; another seed gives other numbers."""
    tables = {0: (run[0] / "metrics.csv").read_text()}
    script = Path(__file__).parents[2] / "scripts" / "train.py"
    argv = ["--data", str(bars), *SMALL, "--train-clips", "2", "--num-clips", "2"]
    result = subprocess.run([sys.executable, script, *argv, "--num-workers", "1", "--out", tmp_path / "a"],
                            capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "a" / "log.txt").read_text() == result.stdout
    assert train_main([*argv, "--seed", "1", "--out", str(tmp_path / "b")]) == 0
    for name in ("a", "b"):
        tables[name] = (tmp_path / name / "metrics.csv").read_text()
    results = {name: [line.split(",")[:7] for line in table.splitlines()] for name, table in tables.items()}
    assert results["a"] == results[0]
    assert results["b"] != results[0]


def test_best_is_the_best_and_not_the_last(bars, tmp_path, monkeypatch):
    """Validation accuracies 0.5, 1, 1, 0.75: the first of the equal ones unless its loss is higher."""
    results = iter([(0.5, 0.1), (1.0, 0.3), (1.0, 0.2), (0.75, 0.1)])

    def fake(model, loader, **_):
        top1, loss = next(results)
        num_right = round(4 * top1)
        scores = np.eye(2)[[0] * num_right + [1] * (4 - num_right)]
        return Evaluation(loss, scores, np.zeros(4, dtype=np.int64), ["a.mp4"] * 4, 1.0, 1.0)

    monkeypatch.setattr("tinyaction.training.loop.evaluate", fake)
    monkeypatch.setattr("tinyaction.data.loader.VideoLoader.__iter__", lambda loader: iter([{
        "inputs": torch.zeros(1, 1, 3, 2, 16, 16), "data_samples": [loader.dataset[0]["data_samples"]]}]))
    assert train_main(["--data", str(bars), "--out", str(tmp_path / "run"), *SMALL, "--epochs", "4"]) == 0
    assert Checkpoint.load(tmp_path / "run" / "best.pt").epoch == 3
    assert Checkpoint.load(tmp_path / "run" / "last.pt").epoch == 4


def test_runs_are_numbered(bars, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert train_main(["--data", str(bars), *SMALL, "--epochs", "1"]) == 0
        assert (tmp_path / "runs" / f"conv2d-{number}" / "best.pt").is_file()


def test_class_folders_train_and_evaluate_on_the_same_split(tmp_path, capsys):
    """Named with numbers, which are names all the same."""
    for name, label in (("10", 0), ("9", 1)):
        for number in range(3):
            write_clip(tmp_path / "data" / name / f"{number}.mp4", label, seed=number)
    argv = ["--data", str(tmp_path / "data")]
    assert train_main([*argv, *SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    trained, _ = text_of(capsys)
    assert re.search(r"^note: .* 2 of 6 videos were chosen for validation, class by class; written to ", trained,
                     re.MULTILINE)
    assert evaluate_main([*argv, "--checkpoint", str(tmp_path / "run" / "best.pt"), "--num-workers", "0"]) == 0
    evaluated, _ = text_of(capsys)
    assert evaluated.splitlines()[0] in trained
    assert evaluated.splitlines()[2].split() == ["10", "9"]


def test_more_than_five_classes_have_a_top_5(tmp_path, capsys):
    for split in ("train", "val"):
        for label in range(6):
            write_clip(tmp_path / "data" / split / f"class{label}" / "a.mp4", label % 2, seed=label, num_frames=4)
    argv = ["--data", str(tmp_path / "data"), *SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]
    assert train_main(argv) == 0
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert header == COLUMNS.replace("val_mean_class,", "val_mean_class,val_top5,")
    assert re.search(r"^accuracy .* over 6 videos, mean over classes .*, top-5 ", text_of(capsys)[0], re.MULTILINE)


def test_a_run_on_the_stand_in_says_so_everywhere(tmp_path, capsys):
    folder = write_set(tmp_path / "data", num_train=2, num_val=2)
    (folder / "README.txt").write_text(STAND_IN_TITLE + "\n")
    assert train_main(["--data", str(folder), *SMALL, "--epochs", "1", "--out", str(tmp_path / "run")]) == 0
    out, _ = text_of(capsys)
    lines = out.splitlines()
    assert lines[0] == lines[-1] == STAND_IN
    assert (tmp_path / "run" / "log.txt").read_text() == out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["stand_in"] is True
    assert Checkpoint.load(tmp_path / "run" / "best.pt").stand_in is True
    checkpoint = str(tmp_path / "run" / "best.pt")
    assert evaluate_main(["--data", str(folder), "--checkpoint", checkpoint, "--num-workers", "0"]) == 0
    assert "trained on generated stand-in clips" in text_of(capsys)[0]


# ---- bad input -----------------------------------------------------------------------------------------------------


def changed(folder: Path, source: Path, files: dict[str, str | bytes | None]) -> Path:
    """A copy of the lists with the videos of the source, and these files in the place of its own; None takes away."""
    for path in source.rglob("*.*"):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
    for name, text in files.items():
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def check_one_sentence(err: str, words: str) -> None:
    assert re.search(words, err), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("files", "argv", "words"),
    [
        # the data
        ({}, "--data {data}/none", r"data/none: no such folder$"),
        ({}, "--data {data}/classes.txt", r"classes\.txt: a file; give the folder"),
        ({"val/clip 2.mp4": None}, "", r"data/val/clip 2\.mp4: no such file; 1 of 4 videos listed in .*val_list\.txt"),
        ({"bars_val_list.txt": None}, "", r"bars_train_list\.txt but no list for the other split"),
        ({"bars_train_list.txt": ""}, "", r"bars_train_list\.txt: the list is empty; a line is 'path label'"),
        ({"bars_val_list.txt": "\n\n"}, "", r"bars_val_list\.txt: the list is empty"),
        ({"bars_train_list.txt": "clip 0.mp4 0\nb.mp4\n"}, "", r"train_list\.txt, line 2: 'b\.mp4' has no label"),
        ({"bars_train_list.txt": "clip 0.mp4 2\n"}, "", r"line 1: the label 2 is out of range; there are 2 classes"),
        ({"bars_val_list.txt": "\nclip 0.mp4 -1\n"}, "", r"val_list\.txt, line 2: the label -1 is negative"),
        ({"classes.txt": "lying\n"}, "", r"train_list\.txt, line 2: the label 1 is out of range; there are 1 classes"),
        ({"bars_train_list.txt": "clip 0.mp4 0\n", "bars_val_list.txt": "clip 0.mp4 0\n", "classes.txt": None}, "",
         r"num_classes is 1; a classifier needs at least two"),
        # the flags
        ({}, "--epoch 3", r"unrecognized arguments: --epoch 3; see tinyaction train --help"),
        ({}, "--epochs three", r"argument --epochs: invalid int value: 'three'"),
        ({}, "--model conv2", r"model 'conv2' is not known; did you mean conv2d or conv3d"),
        ({}, "--model xyz", r"model 'xyz' is not known"),
        ({}, "--optimizer lamb", r"--optimizer is 'lamb'; it must be sgd, adam or adamw"),
        ({}, "--device cuda:97", r"device 'cuda:97' is not usable here \(.*\); try auto or cpu"),
        ({}, "--device gpu", r"device 'gpu' is not usable here \(.*\); try auto or cpu"),
        ({}, "--num-clips 0", r"--num-clips is 0; it must be at least 1"),
        ({}, "--batch-size -8", r"--batch-size is -8; it must be at least 1"),
        ({}, "--lr 0", r"--lr is 0\.0; it must be above 0"),
        ({}, "--out {data}", r"data: exists already and is not empty; name another folder with --out"),
        ({}, "--out {data}/classes.txt", r"classes\.txt: exists already"),
        # the videos, found on the way
        ({"train/clip 5.mp4": b""}, "", r"train/clip 5\.mp4: the file is empty \(0 bytes\)"),
        ({"val/clip 1.mp4": b"not a video\n" * 99}, "", r"val/clip 1\.mp4: not a readable video"),
        ({"train/clip 5.mp4": "CUT"}, "", r"train/clip 5\.mp4: "),
        ({"val/clip 1.mp4": "CUT"}, "--num-workers 1", r"val/clip 1\.mp4: "),
    ],
)
def test_bad_input_of_train_is_one_sentence_and_nothing_half_made(bars, tmp_path, capfd, files, argv, words):
    whole = (bars / "train" / "clip 1.mp4").read_bytes()
    cut = whole[: len(whole) // 2]
    folder = changed(tmp_path / "data", bars, {name: cut if text == "CUT" else text for name, text in files.items()})
    before = sorted(tmp_path.rglob("*"))
    given = [word.format(data=folder) for word in argv.split()]
    defaults = ["--data", str(folder), "--out", str(tmp_path / "run"), *SMALL]
    assert train_main([*defaults, *given]) == 2
    out, err = text_of(capfd)
    # decoders write lines of their own on stderr, of which they may say nothing: ours is the last
    check_one_sentence(err[err.index("error: ") :], words)
    if re.search("clip .*go on with: tinyaction train --resume", err):  # found after the first step: that is kept
        assert (tmp_path / "run" / "last.pt").exists()
    else:
        assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_fails_later_keeps_what_it_has_learned(bars, tmp_path, monkeypatch, capsys):
    """After the first epoch the folder stays: its checkpoints are worth something."""
    from tinyaction.training.loop import train_one_epoch

    epochs = []

    def second_fails(*arguments, **keywords):
        epochs.append(1)
        if len(epochs) == 2:
            raise ValueError("clip.mp4: broken")
        return train_one_epoch(*arguments, **keywords)

    monkeypatch.setattr("tinyaction.training.loop.train_one_epoch", second_fails)
    assert train_main(["--data", str(bars), "--out", str(tmp_path / "run"), *SMALL]) == 2
    check_one_sentence(text_of(capsys)[1], "clip.mp4: broken")
    assert Checkpoint.load(tmp_path / "run" / "last.pt").epoch == 1


@pytest.mark.parametrize(
    ("files", "argv", "words"),
    [
        ({}, "--checkpoint {data}/none.pt", r"data/none\.pt: no such checkpoint"),
        ({}, "--checkpoint {data}/classes.txt", r"classes\.txt: not a readable checkpoint"),
        ({}, "--checkpoint {run}/best.pt --data {data}/none", r"data/none: no such folder"),
        ({"classes.txt": "lying\nstanding\nsitting\n"}, "--checkpoint {run}/best.pt",
         r"data: its class 'sitting' is none of the checkpoint, which knows lying, standing"),
        ({}, "--checkpoint {run}/best.pt --num-clips 0", r"--num-clips is 0; it must be at least 1"),
        ({}, "--checkpoint {run}/best.pt --batch-size 0", r"--batch-size is 0; it must be at least 1"),
        ({}, "--checkpoint {run}/best.pt --clip 3", r"arguments: --clip 3; see tinyaction evaluate --help"),
        ({}, "--checkpoint {run}/best.pt --device cuda:97", r"device 'cuda:97' is not usable here"),
        ({}, "--checkpoint {run}/best.pt --split test", r"data: no video of the split 'test'; a column"),
        ({}, "", r"no network is given; name the checkpoint of a run with --checkpoint, or a published network with"),
        ({"val/clip 1.mp4": None}, "--checkpoint {run}/best.pt", r"val/clip 1\.mp4: no such file; 1 of 4 videos"),
        ({"val/clip 1.mp4": b""}, "--checkpoint {run}/best.pt", r"val/clip 1\.mp4: the file is empty"),
    ],
)
def test_bad_input_of_evaluate(bars, run, tmp_path, capsys, files, argv, words):
    paths = {"data": changed(tmp_path / "data", bars, files), "run": "RUN"}
    given = [word.format(**paths).replace("RUN", str(run[0])) for word in argv.split()]
    assert evaluate_main(["--data", str(paths["data"]), "--num-workers", "0", *given]) == 2
    out, err = text_of(capsys)
    check_one_sentence(err, words)
    assert "accuracy" not in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["none.mp4"], r"none\.mp4: no such file"),
        (["none.mp4", "--num-clips", "0"], r"--num-clips is 0; it must be at least 1"),
        (["none.mp4", "--device", "gpu"], r"device 'gpu' is not usable here"),
        (["none.mp4", "--clip", "3"], r"unrecognized arguments: --clip 3; see tinyaction predict --help"),
        ([], r"the following arguments are required: \w+; see tinyaction predict --help"),
    ],
)
def test_bad_input_of_predict(run, capsys, argv, words):
    assert predict_main([*argv, "--checkpoint", str(run[0] / "best.pt")]) == 2
    check_one_sentence(text_of(capsys)[1], words)


def test_a_crop_that_does_not_fit_is_one_sentence_of_the_loader(bars):
    """The pipelines resize first; in a pipeline of one's own this is said when the video is read."""
    import tinyaction as ta

    pipeline = ta.Compose([ta.VideoInit(), ta.VideoSample(clip_len=2, num_clips=1), ta.VideoDecode(),
                           ta.VideoCrop(65), ta.VideoFormat(), ta.VideoPack()])
    dataset = ta.VideoDataset("bars_val_list.txt", pipeline, data_root=bars, data_prefix="val")
    with pytest.raises(ValueError, match=r"val/clip 0\.mp4: a crop of 65 pixels does not fit into a frame of 64x64"):
        list(ta.build_dataloader(dataset, batch_size=2, num_workers=1))


# ---- the console command -------------------------------------------------------------------------------------------


def test_the_commands_are_listed(capsys):
    assert main(["--help"]) == 0
    listed, _ = text_of(capsys)
    assert main([]) == 2
    assert text_of(capsys)[0] == listed
    for name, text in COMMANDS.items():
        assert f"  {name:<10}{text}\n" in listed
        with pytest.raises(SystemExit) as stopped:
            main([name, "--help"])
        assert stopped.value.code == 0
        assert text_of(capsys)[0].startswith(f"usage: tinyaction {name} ")
        assert (Path(__file__).parents[2] / "scripts" / f"{name}.py").is_file()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("signum", [signal.SIGTERM, getattr(signal, "SIGHUP", 0)])
@pytest.mark.parametrize("folds", [[], ["--folds", "2"]])
def test_a_signal_leaves_no_half_made_run_of_a_probe(signum, folds, bars, tmp_path, monkeypatch, capsys):
    """Else the same command would find its own folder in its way. Features that are computed are kept."""
    data = tmp_path / "bars"
    shutil.copytree(bars, data)
    monkeypatch.setattr("tinyaction.training.probe_run.fit_probe", lambda *_, **__: os.kill(os.getpid(), signum))
    monkeypatch.setattr("tinyaction.training.folds.probe_folds", lambda *_, **__: os.kill(os.getpid(), signum))
    words = ["--data", str(data), "--model", "conv2d", "--method", "probe", "--out", str(tmp_path / "run"), *folds]
    assert train_main([*words, "--size", "16", "--clip-len", "2", "--num-workers", "0"]) == 128 + signum
    assert not (tmp_path / "run").exists()
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signum) == signal.SIG_DFL


def test_sentences_go_through_say():
    """It breaks them into lines that fit a terminal, and shows no control character; tables and data are printed."""
    folder = Path(tinyaction.cli.__file__).parent
    printed = re.compile(r"""print\((?:printable\()?f?["'](?:error|note|NOTE|page|report|groups|table)""")
    assert not [path.name for path in folder.glob("*.py") if printed.search(path.read_text())]


def test_an_unknown_command(capsys):
    assert main(["tarin"]) == 2
    check_one_sentence(text_of(capsys)[1], r"'tarin' is no command of tinyaction; it must be one of prepare, train")


@pytest.mark.parametrize(
    ("error", "code", "err"),
    [
        (ValueError("a.mp4: broken"), 2, "error: a.mp4: broken\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 2, "error: a.txt: no such file or directory\n"),
        (FileNotFoundError("a.txt: no such list"), 2, "error: a.txt: no such list\n"),
        (PermissionError(13, "Permission denied", "runs"), 2, "error: runs: permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_become_sentences_and_codes(capsys, error, code, err):
    @errors_to_exit_code
    def command(argv=None):
        raise error

    assert command() == code
    assert text_of(capsys) == ("", err)


def test_a_fault_of_the_program_stays_a_traceback():
    """Only what a user can put right is a sentence."""
    @errors_to_exit_code
    def command(argv=None):
        raise TypeError("a fault of ours")

    with pytest.raises(TypeError):
        command()


def test_the_reader_of_the_output_may_go_away(run):
    """As in "... | head -1": no traceback, and the code that a shell gives such a program."""
    code = "import sys; from tinyaction.cli import main; sys.exit(main())"
    video = printed_command(run[1], "predict")[1]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "predict", *[video] * 3, "--checkpoint", run[0] / "best.pt"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert (process.wait(), err) == (141, "")


# ---- what is shown -------------------------------------------------------------------------------------------------


def result_with(num_classes: int, num_videos: int) -> Evaluation:
    """Every third video is taken for the class after its own."""
    labels = np.arange(num_videos) % num_classes
    predicted = np.where(np.arange(num_videos) % 3 == 0, (labels + 1) % num_classes, labels)
    return Evaluation(0.5, np.eye(num_classes)[predicted], labels, [], 1, 1)


@pytest.mark.parametrize("num_classes", [2, 6, 12, 13, 60, 400])
@pytest.mark.parametrize("length", [1, 12, 90])
def test_results_fit_into_80_columns(num_classes, length):
    names = [f"{number:x>{length}}"[-length:] for number in range(num_classes)]
    lines = result_lines(result_with(num_classes, 12_000), names)
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    assert len(lines) <= (3 + num_classes if num_classes < 20 else 2 + 10)


def test_a_confusion_matrix_in_text():
    """Of four that run one is taken for sitting; of eleven that sit, none for running."""
    labels, predicted = np.array([0] * 4 + [1] * 11), np.array([0] * 3 + [1] * 12)
    result = Evaluation(0.5, np.eye(2)[predicted], labels, [], 1, 1)
    assert result_lines(result, ["run", "sit down"]) == [
        "accuracy 0.9333 over 15 videos, mean over classes 0.8750",  # 14 / 15, (3/4 + 1) / 2
        "confusion matrix (row = true class, column = predicted class):",
        "            run  sit down",
        "  run         3         1",
        "  sit down    0        11",
    ]


def test_names_that_do_not_fit_above_their_columns_become_letters():
    names = ["a class with a name that is long", "b, which is as long as the other one", "c, and so is this one here"]
    lines = result_lines(result_with(3, 12), names)
    assert lines[1] == "confusion matrix (row = true class, column = predicted class, by its letter):"
    assert lines[2:] == ["                                a   b   c",
                         "  a  a class with a … is long   0   4   0",
                         "  b  b, which is as …ther one   0   4   0",
                         "  c  c, and so is th…one here   0   0   4"]


def test_with_many_classes_the_pairs_that_are_confused_most():
    """Of 60 classes 0, 3, 6, ... are always taken for the next; 0 and 3 are among the first five of equal scores."""
    names = [f"class {number}" for number in range(60)]
    lines = result_lines(result_with(60, 180), names)
    assert lines[0] == "accuracy 0.6667 over 180 videos, mean over classes 0.6667, top-5 0.7000"  # 42 of 60
    assert len(lines) == 2 + 10
    assert lines[1:4] == ["most confused (true -> predicted):", "      3 videos  class 0 -> class 1",
                          "      3 videos  class 3 -> class 4"]
    perfect = Evaluation(0.0, np.eye(60), np.arange(60), [], 1, 1)
    assert result_lines(perfect, names)[1:] == ["no video was confused"]


class Terminal:
    def __init__(self, is_terminal: bool) -> None:
        self.text, self.is_terminal = "", is_terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return self.is_terminal


LONG = Progress("train", 12345, 99999, 0.6931, 0.5, 1234.5, 98765.0)
END = Progress("val", 2, 2, 0.6931, 0.5, 12.3, 0.0)


def test_progress_without_tqdm_is_one_line_that_is_written_over(monkeypatch):
    terminal = Terminal(True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr("tinyaction.cli.progress.tqdm", None)
    line = ProgressLine()
    line(LONG)
    line(END)
    shown = terminal.text.split("\r")
    assert shown[1].rstrip() == "train 12345/99999 loss 0.693 top1 0.500 1234.5 clips/s 98765 s left"
    assert shown[2].rstrip() == "val   2/2 loss 0.693 top1 0.500 12.3 clips/s 0 s left"
    assert {len(text) for text in shown} <= {0, 79}
    assert "\n" not in terminal.text
    assert shown[-2:] == [" " * 79, ""]  # nothing of it stays


def test_progress_with_tqdm_is_a_bar_that_goes_away(monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal(True)
    monkeypatch.setattr("sys.stderr", terminal)
    line = ProgressLine()
    line(Progress("val", 1, 2, 0.6931, 0.5, 12.3, 1.0))
    line(END)
    assert "loss 0.693 top1 0.500 12.3 clips/s" in terminal.text
    assert "\n" not in terminal.text


def test_progress_in_a_file_is_a_plain_line_now_and_then(monkeypatch):
    file, clock = Terminal(False), iter([0.0, 29.0, 30.0, 30.0, 31.0])
    monkeypatch.setattr("sys.stderr", file)
    line = ProgressLine(now=lambda: next(clock))
    for _ in range(3):
        line(LONG)
    line.close()
    assert file.text == "train 12345/99999 loss 0.693 top1 0.500 1234.5 clips/s 98765 s left\n"


def test_bad_videos_are_skipped_where_asked_and_counted_with_the_accuracy(bars, tmp_path, capsys):
    folder = tmp_path / "bars"
    shutil.copytree(bars, folder)
    whole = (folder / "train" / "clip 1.mp4").read_bytes()
    (folder / "train" / "clip 1.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "val" / "clip 2.mp4").write_bytes(b"")
    asked = ["--on-error", "skip", "--max-skipped", "0.3", "--num-workers", "0"]
    assert train_main(["--data", str(folder), "--out", str(tmp_path / "run"), *SMALL, *asked]) == 0
    printed = capsys.readouterr().out
    assert "skipped 1 train, 1 val" in printed
    assert re.search(r"^accuracy [0-9.]+ over 3 of 4 videos", printed, re.MULTILINE)
    bad = (tmp_path / "run" / "bad_files.txt").read_text()
    assert "clip 1.mp4" in bad and "the file is empty (0 bytes)" in bad and len(bad.splitlines()) == 2
    checkpoint = str(tmp_path / "run" / "best.pt")
    assert evaluate_main(["--data", str(folder), "--checkpoint", checkpoint, *asked]) == 0
    assert re.search(r"^accuracy [0-9.]+ over 3 of 4 videos", capsys.readouterr().out, re.MULTILINE)
    assert evaluate_main(["--data", str(folder), "--checkpoint", checkpoint, "--num-workers", "0"]) == 2
    assert "clip 2.mp4: the file is empty (0 bytes)" in capsys.readouterr().err
