"""An audit of clips with several labels: recordings on both sides, and a label that was planted wrong."""

import csv
import json

import pytest
from toys import LIGHTS, clip_of, place, save_toy, write_lights

from tinyaction.audit.audit import audit_data
from tinyaction.audit.page import write_audit
from tinyaction.cli import main
from tinyaction.training.config import RunConfig
from tinyaction.video.writer import write_video


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    """21 clips in 3 groups; 2.mp4 shows blue and green and is labelled red."""
    folder = write_lights(tmp_path_factory.mktemp("lights") / "clips")
    header, *lines = (folder / "list.csv").read_text().splitlines()
    assert lines[2] == "2.mp4,blue;green,train"
    lines[2] = "2.mp4,red,train"
    (folder / "list.csv").write_text("\n".join([f"{header},group", *(
        f"{line},{number // 7}" for number, line in enumerate(lines))]) + "\n")
    return folder


def test_a_wrong_label_is_found_in_both_ways(lights, tmp_path):
    network = save_toy(tmp_path / "model.pt", clip_len=2, size=16)
    audit = audit_data(RunConfig(str(lights), method="probe", model="conv2d", weights=str(network), clip_len=2,
                                 size=16, pooling="mean", num_workers=0, device="cpu"))
    write_audit(audit, tmp_path)
    facts, page = json.loads((tmp_path / "audit.json").read_text()), (tmp_path / "audit.html").read_text("utf-8")
    found = {(one["path"].split("/")[-1], one["label"], one["looks_like"]) for one in facts["labels"][:3]}
    assert found == {("2.mp4", "red", None), ("2.mp4", None, "blue"), ("2.mp4", None, "green")}
    assert "labelled red, looks without it" in page and "not labelled green, looks like it" in page
    assert audit.sentences()[0].startswith(
        f"{len(facts['labels'])} of 63 labels are doubtful: a probe of the other clips says the opposite of these, ")
    assert audit.notes == ["no simpler models: those know one label a clip"] and not facts["shortcuts"]
    rows = [f"<td>{name}</td><td>{num}</td><td>4</td>" for name, num in zip(LIGHTS, (7, 7, 9), strict=True)]
    assert all(row in page for row in rows)
    assert (tmp_path / "look_at.txt").read_text().splitlines()[0] == f"{lights}/2.mp4"


def test_recordings_are_found_without_labels_or_features(tmp_path):
    rows = []
    for number in range(8):
        frames = clip_of(place(1 if number == 6 else number), seed=number, num_frames=6)
        write_video(tmp_path / f"{number}.mp4", frames, fps=10)
        rows.append(f"{number}.mp4,{('walk', '', 'wave')[number % 3]},{'train' if number < 5 else 'val'}")
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    assert main(["audit", "--data", str(tmp_path), "--multi-label", "--write-groups", str(tmp_path / "groups.csv"),
                 "--num-workers", "1", "--out", str(tmp_path / "audit")]) == 0
    facts = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert [{one["first"].split("/")[-1], one["second"].split("/")[-1]} for one in facts["leaks"]] == [
        {"1.mp4", "6.mp4"}]
    with open(tmp_path / "groups.csv", newline="") as file:
        groups = {row["path"]: (row["group"], row["label"]) for row in csv.DictReader(file)}
    assert groups["1.mp4"][0] == groups["6.mp4"][0] != groups["2.mp4"][0]
    assert [groups[f"{number}.mp4"][1] for number in range(3)] == ["walk", "", "wave"]
