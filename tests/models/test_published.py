"""Published networks by name: what their files say, what does not fit, and their way into a checkpoint."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peers import lively

import tinyaction as ta
from tinyaction.models import create, published, timesformer, videomae
from tinyaction.models.published import all_cards, cards_of, family_of, load_published

safetensors = pytest.importorskip("safetensors.torch", reason="the extra hub is not installed: pip install "
                                                              "'tinyaction[hub]'")

SMALL = dict(embed_dim=16, depth=2, num_heads=2, mlp_dim=32, clip_len=4, size=16, patch=8)
CONFIG = {"model_type": "videomae", "architectures": ["VideoMAEForVideoClassification"], "hidden_size": 16,
          "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "num_frames": 4,
          "image_size": 16, "patch_size": 8, "tubelet_size": 2, "id2label": {"10": "k", **{
              str(index): "abcdefghij"[index] for index in range(10)}}}
PROCESSOR = {"crop_size": {"height": 16, "width": 16}, "size": {"shortest_edge": 18}, "image_mean": [0.5, 0.4, 0.3],
             "image_std": [0.2, 0.2, 0.2], "rescale_factor": 1 / 255}


def small(*, num_classes=11, **options):
    return lively(videomae.build(num_classes=num_classes, **SMALL | options))


def own_names(model):
    """The tensors as VideoMAE's own code names them."""
    state = {}
    for name, tensor in model.state_dict().items():
        name = name.removeprefix("backbone.").replace("cls_head.fc.", "head.")
        if name.endswith("qkv.bias"):
            state[name.replace("qkv.bias", "q_bias")], _, state[name.replace("qkv.bias", "v_bias")] = tensor.chunk(3)
        else:
            state[name] = tensor.contiguous()
    return {name: tensor.clone() for name, tensor in state.items()}


def write(folder, *, config=None, processor=PROCESSOR, model=None, change=None):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    state = own_names(small() if model is None else model)
    safetensors.save_file(state if change is None else change(state), folder / "model.safetensors")
    return folder


def refusal(folder, *arguments, **options):
    """The one sentence, with DIR for the folder."""
    with pytest.raises(ValueError) as error:
        load_published(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(folder), "DIR")


# ---------------------------------------------------------------------------------------------------------------------
# what the files say
# ---------------------------------------------------------------------------------------------------------------------

def test_class_names_clips_and_pixels_of_a_folder(tmp_path):
    model = load_published(write(tmp_path), average_clips="score", max_views=3)
    known = model.published
    assert known.class_names == tuple("abcdefghijk")                   # in the order of their numbers, not of text
    assert (known.clip_len, known.size, known.short_side, known.frame_interval) == (4, 16, 18, None)
    assert known.source == str(tmp_path) and family_of(known.name) is videomae
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([127.5, 102, 76.5])
    assert model.data_preprocessor.std.flatten().tolist() == pytest.approx([51] * 3)
    assert not model.training and model.cls_head.average_clips == "score" and model.max_views == 3
    assert model.cls_head.dropout.p == 0


@pytest.mark.parametrize("change, mean, std, short_side", [
    ({"do_rescale": False}, [0.5, 0.4, 0.3], [0.2] * 3, 18),
    ({"do_normalize": False}, [0] * 3, [255] * 3, 18),
    ({"image_mean": None, "image_std": None}, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], 18),
    ({"crop_size": 32, "size": 40}, [127.5, 102, 76.5], [51] * 3, 20),
    ({"size": {"height": 16, "width": 16}}, [127.5, 102, 76.5], [51] * 3, 16),
])
def test_the_ways_in_which_a_processor_is_written(tmp_path, change, mean, std, short_side):
    model = load_published(write(tmp_path, processor=PROCESSOR | change))
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx(mean)
    assert model.data_preprocessor.std.flatten().tolist() == pytest.approx(std)
    assert model.published.short_side == short_side and model.published.size == 16


def test_scores_are_those_of_the_network_that_was_saved(tmp_path):
    model = small()
    with torch.no_grad():
        for block in model.backbone.blocks:
            block.attn.qkv.bias[16:32] = 0
    loaded = load_published(write(tmp_path, model=model, processor=None))
    inputs = torch.randint(0, 256, (2, 2, 3, 4, 16, 16), dtype=torch.uint8)
    assert loaded(inputs, mode="logits").equal(model(inputs, mode="logits"))


def test_the_clips_of_the_users_choice(tmp_path):
    model = load_published(write(tmp_path), clip_len=8, size=32)
    assert (model.published.clip_len, model.published.size, model.published.short_side) == (8, 32, 36)
    assert model(torch.zeros(1, 1, 3, 8, 32, 32, dtype=torch.uint8), mode="logits").shape == (1, 1, 11)
    assert model.published.arguments["clip_len"] == 4                  # the positions that were trained


def test_a_new_classifier(tmp_path):
    model = load_published(write(tmp_path), num_classes=3)
    assert model.cls_head.fc.weight.shape == (3, 16) and 0.005 < model.cls_head.fc.weight.std() < 0.02
    assert model.published.class_names == () and model.backbone.norm.weight.equal(small().backbone.norm.weight)


@pytest.mark.parametrize("name", ["net.safetensors", "net.bin", "net.pth"])
def test_one_file_for_a_name(tmp_path, monkeypatch, name):
    known = videomae.PUBLISHED[2]
    card = type(known)(**{**vars(known), "arguments": SMALL, "num_classes": 11})
    monkeypatch.setattr(videomae, "PUBLISHED", (card,))
    state = own_names(small())
    if name.endswith("safetensors"):
        safetensors.save_file(state, tmp_path / name)
    else:
        torch.save({"module": state}, tmp_path / name)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "id2label": {"0": "yes"}}')  # of another network
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    model = load_published("videomae-base", weights=tmp_path / name)
    assert model.published.frame_interval == 4                         # as many classes as the published weights
    assert model.published.class_names == tuple(map(str, range(11)))
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.backbone.norm.weight.equal(small().backbone.norm.weight)


# ---------------------------------------------------------------------------------------------------------------------
# what does not fit
# ---------------------------------------------------------------------------------------------------------------------

def test_unknown_names():
    assert refusal("no folder", "videomae-bse") == (
        "network 'videomae-bse' is not known; did you mean videomae-base or videomae-huge or videomae-small?")
    assert refusal("no folder", "xyz").startswith("network 'xyz' is not known; did you mean ")
    assert refusal("no folder", "videomae-base", weights="kinetics600") == (
        "videomae-base has no weights 'kinetics600': published are kinetics and ssv2; or name hub:OWNER/NAME, a "
        "folder or a file")
    assert refusal("no folder", "videomae-base", num_classes=1) == "num_classes is 1; a classifier needs at least two"


def test_a_folder_brings_its_own_weights(tmp_path):
    assert refusal(tmp_path, write(tmp_path), weights="kinetics") == (
        "weights is 'kinetics' beside DIR, which brings its own; name the network instead")


@pytest.mark.parametrize("change, rule", [
    ({"model_type": "bert"}, "DIR: its config.json is of model_type 'bert'; known are videomae, "),
    ({"model_type": None}, "DIR: its config.json is of model_type 'None'; known are videomae, "),
    ({"hidden_act": "relu"}, "DIR: its config.json does not fit: its hidden_act is 'relu'; the networks here have "),
    ({"image_size": [16, 24]}, "DIR: its config.json does not fit: its size is [16, 24]; the networks here take squa"),
    ({"image_size": 20}, "DIR: its config.json does not fit: size is 20; the network takes a multiple of 8 pixels"),
    ({"num_frames": 3}, "DIR: its config.json does not fit: clip_len is 3; the network takes a multiple of 2 frames"),
    ({"num_frames": "4"}, "DIR: its config.json does not fit: its num_frames is '4'; it must be a number above"),
    ({"patch_size": 0}, "DIR: its config.json does not fit: its patch_size is 0; it must be a number above 0"),
    ({"id2label": {"a": 0}}, "DIR: the id2label of its config.json must name classes '0', '1' and so on"),
    ({"id2label": ["a"]}, "DIR: the id2label of its config.json must name classes '0', '1' and so on"),
    ({"hidden_size": 15}, "DIR: its config.json does not fit: its 15 features cannot be shared by 2 heads"),
    ({"num_hidden_layers": 3}, "DIR does not fit videomae-small: 12 of 42 tensors are missing in it, backbone.blocks"),
    ({"num_hidden_layers": 1}, "DIR does not fit videomae-small: 12 of its 30 tensors have no place, backbone.blocks"),
    ({"hidden_size": 32}, "DIR does not fit videomae-small: its backbone."),
    ({"id2label": {"0": "a", "1": "b"}}, "DIR: its config.json names 2 classes, its classifier has 11; one of the "),
])
def test_configurations_that_do_not_fit(tmp_path, change, rule):
    assert refusal(tmp_path, write(tmp_path, config=CONFIG | change)).startswith(rule)


@pytest.mark.parametrize("change, rule", [
    ({"image_mean": [0.5]}, "its image_mean and image_std must be of three colours"),
    ({"image_mean": "half"}, ""), ({"rescale_factor": 0}, ""), ({"crop_size": "large"}, ""),
])
def test_a_processor_that_does_not_fit(tmp_path, change, rule):
    assert refusal(tmp_path, write(tmp_path, processor=PROCESSOR | change)).startswith(
        f"DIR: the file of its processor does not fit: {rule}")


def test_a_folder_that_is_called_as_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(published, "find_files", lambda where: pytest.fail(f"asked {where}"))
    write(tmp_path / "videomae-base")
    with pytest.raises(pytest.fail.Exception, match="asked hub:MCG-NJU/videomae-base-finetuned-kinetics"):
        load_published("videomae-base")
    with pytest.raises(pytest.fail.Exception, match="asked videomae-base"):
        load_published(Path("videomae-base"))


@pytest.mark.parametrize("name, rule", [
    ("videomae-base", "DIR: its config.json has embed_dim 16, videomae-base has 768; name the folder alone to take it "
                      "as it is"),
    ("timesformer-base", "DIR: its config.json is of model_type 'videomae', which timesformer-base is not"),
])
def test_a_folder_of_another_network_than_named(tmp_path, name, rule):
    assert refusal(tmp_path, name, weights=write(tmp_path)) == rule


@pytest.mark.parametrize("options, rule", [
    ({"clip_len": 1}, "clip_len is 1; the network takes at least 2 frames, those of one patch"),
    ({"clip_len": 0}, "clip_len is 0; the network takes at least 2 frames, those of one patch"),
    ({"clip_len": 5}, "clip_len is 5; the network takes a multiple of 2 frames"),
    ({"size": 20}, "size is 20; the network takes a multiple of 8 pixels"),
    ({"size": 4}, "size is 4; the network takes a multiple of 8 pixels"),
])
def test_clips_that_do_not_fit_before_a_tensor_is_read(tmp_path, options, rule):
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    assert refusal(tmp_path, tmp_path, **options) == rule


def test_clips_that_do_not_fit_a_recognizer(tmp_path):
    model = load_published(write(tmp_path))
    with pytest.raises(ValueError, match="clip_len is 5; the network takes a multiple of 2 frames"):
        model(torch.zeros(1, 1, 3, 5, 16, 16, dtype=torch.uint8))


def test_tensors_that_do_not_fit(tmp_path):
    def without(state):
        return {name: tensor for name, tensor in state.items() if name != "blocks.1.attn.proj.weight"}

    assert refusal(tmp_path, write(tmp_path, change=without)) == (
        "DIR does not fit videomae-small: 1 of 30 tensors are missing in it, backbone.blocks.1.attn.proj.weight "
        "first; the weights are of another network")
    assert refusal(tmp_path, write(tmp_path, change=lambda state: state | {"extra": torch.ones(1)})) == (
        "DIR does not fit videomae-small: 1 of its 31 tensors have no place, backbone.extra first; the weights are of "
        "another network")


def test_tensors_that_are_no_numbers(tmp_path):
    write(tmp_path, change=lambda state: state | {"head.bias": torch.full((11,), torch.nan)})
    assert refusal(tmp_path, tmp_path) == (
        "DIR: its cls_head.fc.bias holds NaN or infinite numbers, so every score would be meaningless")


def test_missing_blocks_are_no_new_classifier(tmp_path):
    def without(state):
        return {name: tensor for name, tensor in state.items() if not name.startswith(("blocks.1.", "norm."))}

    assert "12 of 30 tensors are missing in it, backbone.blocks.1" in refusal(
        tmp_path, write(tmp_path, change=without), num_classes=3)


# ---------------------------------------------------------------------------------------------------------------------
# among the other networks
# ---------------------------------------------------------------------------------------------------------------------

def test_a_checkpoint_carries_it(tmp_path):
    model = load_published(write(tmp_path / "folder"))
    ta.Checkpoint(create.model_arguments(model.published.name, model), model.state_dict(),
                  list(model.published.class_names), {"clip_len": 4, "size": 16}).save(tmp_path / "best.pt")
    loaded, checkpoint = ta.load_model(tmp_path / "best.pt")
    inputs = torch.randint(0, 256, (2, 2, 3, 4, 16, 16), dtype=torch.uint8)
    assert loaded(inputs, mode="logits").equal(model(inputs, mode="logits"))
    assert checkpoint.class_names == list("abcdefghijk")
    assert loaded.published.arguments == model.published.arguments


def test_a_checkpoint_gives_weights_to_a_name(tmp_path, monkeypatch):
    model = ta.create_model("videomae-base", 5, arguments=SMALL)
    ta.Checkpoint({"num_classes": 5}, model.state_dict(), list("abcde"), {}).save(tmp_path / "best.pt")
    monkeypatch.setattr(videomae, "PUBLISHED", (type(cards_of("videomae-base")[0])(
        **{**vars(cards_of("videomae-base")[0]), "arguments": SMALL}),))
    torch.manual_seed(0)
    loaded = ta.create_model("videomae-base", 3, weights=str(tmp_path / "best.pt"), dropout=0.3, mean=(1, 2, 3))
    assert loaded.training and loaded.cls_head.dropout.p == 0.3 and loaded.cls_head.num_classes == 3
    assert loaded.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert loaded.backbone.blocks[1].mlp.fc1.weight.equal(model.backbone.blocks[1].mlp.fc1.weight)


def test_created_by_name_with_the_rules_of_the_name():
    model = ta.create_model("timesformer-base", 3, dropout=0.1, arguments=SMALL | {"clip_len": 2})
    assert model.published.clip_len == 2 and model.training
    assert model.data_preprocessor.mean.flatten().tolist() == list(timesformer.MEAN)
    assert create.input_rule("vjepa2-vitl").size == 256
    assert create.normalization("timesformer-hr")[1] == timesformer.STD
    create.check_input("videomae-base", clip_len=32, size=320)
    for name, clip_len, size, rule in [
        ("videomae-base", 15, 224, "clip_len is 15; the network takes a multiple of 2 frames"),
        ("videomae-base", 1, 224, "clip_len is 1; videomae-base takes at least 2 frames"),
        ("timesformer-base", 8, 100, "size is 100; the network takes a multiple of 16 pixels"),
    ]:
        with pytest.raises(ValueError, match=rule):
            create.check_input(name, clip_len=clip_len, size=size)
    with pytest.raises(ValueError, match="model 'videomae-bass' is not known; did you mean videomae-base"):
        ta.create_model("videomae-bass", 2)


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: f"{card.name}-{card.dataset}")
def test_cards_say_what_their_networks_are(card):
    family = family_of(card.name)
    with torch.device("meta"):
        model = family.build(num_classes=card.num_classes or 174, mean=card.mean, std=card.std, **card.arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == card.num_parameters
    family.check_input(card.arguments, clip_len=card.clip_len, size=card.size)
    assert card.least_clip_len <= card.clip_len and card.short_side >= card.test_size >= card.least_size
    assert card.address.startswith(("hub:", "https:")) and (card.top1 is None) == (card.source == "")


def test_no_two_cards_are_the_same():
    assert len({(card.name, card.dataset) for card in all_cards()}) == len(all_cards())
    assert len({card.address for card in all_cards()}) == len(all_cards())


def test_depth_of_layers():
    for name, options in [("videomae-base", SMALL), ("timesformer-base", SMALL),
                          ("vjepa2-vitl", dict(embed_dim=16, depth=2, num_heads=2, pooler_depth=1))]:
        model = ta.create_model(name, 2, arguments=options)
        depths = {key: model.backbone.layer_of(key) for key, _ in model.named_parameters()}
        assert model.backbone.num_layers == 4 and set(depths.values()) == {0, 1, 2, 3}
        assert depths["backbone.patch_embed.proj.weight"] == 0 and depths["cls_head.fc.weight"] == 3
        assert depths["backbone.blocks.1.mlp.fc1.bias"] == 2 and depths["backbone.norm.weight"] == 3
        assert model.backbone.layer_of("blocks.0.norm1.weight") == 1
        if name == "vjepa2-vitl":
            assert depths["backbone.pooler.blocks.0.attn.qkv.weight"] == 3
        if name == "timesformer-base":
            assert depths["backbone.pos_embed"] == depths["backbone.cls_token"] == depths["backbone.time_embed"] == 0


def test_drop_path_leaves_out_branches_in_training_alone():
    backbone = lively(videomae.build(**SMALL | {"depth": 3})).backbone
    x = torch.randn(2, 3, 4, 16, 16)
    whole = backbone(x)
    backbone.set_drop_path(0.5)
    assert backbone(x).equal(whole) and [block.drop_path.p for block in backbone.blocks] == [0, 0.25, 0.5]
    tokens = torch.randn(400, 8, 16)
    first = backbone.blocks[0](tokens)
    backbone.train()
    assert backbone.blocks[0](tokens).equal(first)
    untouched = (backbone.blocks[2](tokens) == tokens).flatten(1).all(dim=1).float().mean()
    assert 0.15 < untouched < 0.35                                     # both branches left out: a quarter of the clips


def test_nothing_of_it_is_imported_unasked():
    code = "import sys, tinyaction; tinyaction.create_model('conv2d', 2); print(list(sys.modules))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "tinyaction.models.create" in imported
    for name in ("published", "vit", *published.FAMILIES):
        assert f"'tinyaction.models.{name}'" not in imported
    assert "safetensors" not in imported and "hugging" not in imported
