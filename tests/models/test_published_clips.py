"""Published networks of PyTorchVideo and files of MMAction2 by name."""

import pytest
import torch
from nets import recognizer_from_mmaction2
from test_openmmlab_transformers import timesformer_state, vit_state
from test_openmmlab_video import slowfast_state, slowonly_state, x3d_state

from tinyaction.models import slowfast, x3d
from tinyaction.models.create import create_model, model_arguments
from tinyaction.models.published import load_published

FILES = {"x3d_s": (x3d_state(), 4), "slow_r50": (slowonly_state(), 4), "slowfast_r50": (slowfast_state(), 8),
         "timesformer-base": (timesformer_state(), 4), "videomae-base": (vit_state(), 16)}


@torch.no_grad()
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_mmaction2_behind_a_name(tmp_path, name):
    """Its variant of the network, which a checkpoint can build again; or that with a new classifier."""
    state, clip_len = FILES[name]
    torch.save({"state_dict": state}, tmp_path / "epoch_20.pth")
    model, expected = load_published(name, weights=tmp_path / "epoch_20.pth"), recognizer_from_mmaction2(state).eval()
    pixels = torch.randint(0, 256, (1, 1, 3, clip_len, 32, 32), generator=torch.Generator().manual_seed(0))
    assert model(pixels, mode="logits").equal(expected(pixels, mode="logits"))
    again = create_model(**model_arguments(name, model)).eval()
    again.load_state_dict(model.state_dict())
    assert again(pixels, mode="logits").equal(expected(pixels, mode="logits"))
    fresh = create_model(name, 3, weights=str(tmp_path / "epoch_20.pth")).eval()
    assert fresh.cls_head.num_classes == 3 and fresh(pixels).allclose(expected(pixels), atol=1e-5)


def test_a_file_of_mmaction2_behind_another_name(tmp_path):
    torch.save(slowonly_state(), tmp_path / "file.pth")
    with pytest.raises(ValueError, match="file.pth is MMAction2's slowonly, which x3d_s is not"):
        load_published("x3d_s", weights=tmp_path / "file.pth")


@pytest.mark.parametrize("card, prefix", [(x3d.PUBLISHED[1], "blocks.5"), (slowfast.PUBLISHED[0], "blocks.5")],
                         ids=["x3d_s", "slow_r50"])
def test_a_published_file_brought_by_hand(tmp_path, card, prefix):
    """In PyTorchVideo's names, with the class names of Kinetics and the clips of the published evaluation."""
    family = x3d if card.name.startswith("x3d") else slowfast
    own = family.build(**card.arguments).state_dict()
    path = tmp_path / card.address.rpartition("/")[2]
    theirs = {"cls_head.fc": f"{prefix}.proj", "cls_head.hidden": f"{prefix}.pool.post_conv",
              "backbone.blocks.5.pre": f"{prefix}.pool.pre"}
    state = {}
    for key, tensor in own.items():
        name = key
        for ours, their in theirs.items():
            name = name.replace(ours, their)
        state[name.removeprefix("backbone.")] = tensor[..., None, None, None] if "post_conv" in name else tensor
    torch.save({"model_state": state}, path)
    model = load_published(card.name, weights=path)
    assert all(tensor.equal(own[key]) for key, tensor in model.state_dict().items())
    published = model.published
    assert published.class_names[0] == "abseiling" and len(published.class_names) == 400
    assert published.clip_len == card.clip_len and published.size == published.short_side == card.test_size
    with pytest.raises(ValueError, match="does not fit .*the weights are of another network"):
        load_published("slowfast_r50", weights=path)
