"""The same numbers as MMAction2 1.2.0, at every depth: indices, pixels, features, logits, loss, gradients, metrics.

What the numbers are and how they were made is said in the README of the folder that TINYACTION_SHARED names. Indices,
decoded frames, packed arrays and metrics are equal; what went through floating-point arithmetic is equal to 1e-5.
"""

import json
import random
from hashlib import sha256

import numpy as np
import pytest
import torch

import tinyaction as ta
from tinyaction.data.sampling import segment_indices, uniform_indices

CONFIGS = {"A": {"clip_len": 16, "num_clips": 5}, "B": {"clip_len": 8, "num_clips": 3}}
CLIPS = {
    "demo": "clips/odd/demo.mp4",
    "test_mp4": "clips/odd/test.mp4",
    "test_avi": "clips/odd/test.avi",
    "k2_typing24": "clips/kinetics400_tiny/train/typing24.mp4",
    "k2_typing10": "clips/kinetics400_tiny/train/typing10.mp4",
}


class Reference:
    """The folder of clips and numbers; what is read or computed once is kept for the next test."""

    def __init__(self, shared):
        self.shared = shared
        self.packed_clips = {}

    def clip(self, name):
        return str(self.shared / CLIPS[name])

    def json(self, name):
        return json.loads((self.shared / "reference" / f"{name}.json").read_text())

    def arrays(self, name):
        return np.load(self.shared / "reference" / f"{name}.npz")

    def weights(self, name):
        return torch.load(self.shared / "reference" / f"{name}.pt", weights_only=True)

    def packed(self, clip, config):
        """The guide's evaluation pipeline on a clip: inputs (V, C, T, 224, 224)."""
        if (clip, config) not in self.packed_clips:
            pipeline = ta.Compose([
                ta.VideoInit(), ta.VideoSample(**CONFIGS[config], test_mode=True), ta.VideoDecode(),
                ta.VideoResize(256), ta.VideoCrop(224), ta.VideoFormat(), ta.VideoPack(),
            ])
            self.packed_clips[clip, config] = pipeline({"filename": self.clip(clip), "label": 0})
        return self.packed_clips[clip, config]


@pytest.fixture(scope="module")
def reference(shared):
    return Reference(shared)


def sha(array):
    return sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def close(actual, expected, *, tolerance=1e-5):
    return np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------------------------------------------
# a: the guide's evaluation pipeline
# ---------------------------------------------------------------------------------------------------------------------


def test_frame_indices_of_the_guides_sampling(reference):
    entries = reference.json("a_videosample")
    for entry in entries:
        rng = np.random.RandomState(42 if entry["test_mode"] else entry["np_seed"])
        indices = segment_indices(entry["total"], entry["clip_len"], entry["num_clips"], rng)
        assert indices.flatten().tolist() == entry["inds"], entry
    assert len(entries) == 24


@pytest.mark.parametrize("clip, config", [("demo", "A"), ("test_avi", "A"), ("test_avi", "B")])
def test_every_step_of_the_guides_pipeline(clip, config, reference):
    expected = reference.json("a_pipeline")["entries"][f"{clip}/{config}"]
    results = ta.VideoInit()({"filename": reference.clip(clip), "label": 0})
    results = ta.VideoSample(**CONFIGS[config], test_mode=True)(results)
    assert results["frame_inds"].tolist() == expected["frame_inds"]
    results = ta.VideoDecode()(results)
    assert list(results["imgs"][0].shape) == expected["decoded_shape"]
    assert [sha(frame) for frame in results["imgs"]] == expected["decoded_sha256"]
    results = ta.VideoResize(256)(results)
    assert list(results["imgs"][0].shape) == expected["resized_shape"]
    assert sha(results["imgs"][0]) == expected["resized_frame0_sha"]
    packed = ta.VideoPack()(ta.VideoFormat()(ta.VideoCrop(224)(results)))
    assert list(packed["inputs"].shape) == expected["shape"]
    assert sha(packed["inputs"]) == expected["sha256"]
    assert list(packed["data_samples"].img_shape) == expected["img_shape"]
    assert packed["data_samples"].label.tolist() == expected["gt_label"]


@pytest.mark.parametrize("clip, config", [("demo", "A"), ("test_avi", "A"), ("test_avi", "B")])
def test_the_composed_pipeline_which_resizes_while_reading(clip, config, reference):
    entry = reference.json("a_pipeline")["entries"][f"{clip}/{config}"]
    inputs = reference.packed(clip, config)["inputs"]
    crop = reference.arrays("a_pipeline_small")[f"{clip}/{config}/crop"]
    assert np.array_equal(inputs[:, :, :4, 100:132, 100:132], crop)
    assert sha(inputs) == entry["sha256"]


@pytest.mark.parametrize("clip", CLIPS)
def test_meaning_of_r_size(clip, reference):
    expected = reference.json("a_pipeline")["resize_semantics"]
    frame = ta.open_video(reference.clip(clip)).get_batch([0])[0]
    short_side = ta.VideoResize(256).resize_frame(frame)
    assert [short_side.shape[1], short_side.shape[0]] == expected[f"{clip}/rescale/guide_r256"]["out_wh"]
    assert sha(short_side) == expected[f"{clip}/rescale/guide_r256"]["sha256"]
    exact = ta.VideoResize((256, 256)).resize_frame(frame)  # the guide's tuple
    assert sha(exact) == expected[f"{clip}/imresize_exact_256x256"]["sha256"]


# ---------------------------------------------------------------------------------------------------------------------
# b: after mean and std
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip, config", [("demo", "A"), ("test_avi", "A"), ("test_avi", "B")])
def test_normalized_pixels(clip, config, reference):
    expected = reference.json("b_preproc")[f"{clip}/{config}"]
    inputs = ta.VideoPreprocessor()(reference.packed(clip, config)["inputs"][None])
    assert list(inputs.shape) == expected["shape"] and str(inputs.dtype) == expected["dtype"]
    close(inputs.double().mean(dim=(0, 1, 3, 4, 5)), expected["ch_mean"])
    crop = reference.arrays("b_preproc_small")[f"{clip}/{config}/crop"]
    close(inputs[0, :, :, :2, 100:116, 100:116], crop)
    assert sha(inputs) == expected["sha256"]


# ---------------------------------------------------------------------------------------------------------------------
# c: the newest guide's model
# ---------------------------------------------------------------------------------------------------------------------


def guides_model(reference, weights, *, num_classes=2, **options):
    model = ta.create_model("conv3d", num_classes, **options)
    model.load_state_dict(reference.weights(weights))  # strict: every key is the guide's
    return model


def test_names_and_shapes_of_the_weights(reference):
    expected = reference.json("c_model")
    state = guides_model(reference, "zelda_state").state_dict()
    assert {key: list(values.shape) for key, values in state.items()} == expected["keys"]
    close([values.double().norm() for values in state.values()], [expected["norms"][key] for key in state])


@pytest.mark.parametrize("clip, config", [("demo", "B"), ("test_mp4", "B"), ("k2_typing24", "B"), ("test_avi", "A")])
@torch.inference_mode()
def test_features_logits_and_predictions(clip, config, reference):
    arrays, key = reference.arrays("c_model"), f"nontrivial/{clip}/{config}"
    model = guides_model(reference, "zelda_state_nontrivial").eval()
    packed = reference.packed(clip, config)
    features = model(packed["inputs"][None], mode="tensor")                        # (V, t, F, h, w)
    close(features.mean(dim=(1, 3, 4)), arrays[f"{key}/feat_pooled"])
    close(features[0, :2, :8, :6, :6].transpose(0, 1), arrays[f"{key}/feat_crop"])
    logits = model.cls_head(features)[None]                                        # (1, V, K)
    close(logits[0], arrays[f"{key}/logits"])
    for average_clips in ("prob", "score", None):
        model.cls_head.average_clips = average_clips
        (sample,) = model.cls_head.predict(logits, [packed["data_samples"]])
        close(sample.pred_score, arrays[f"{key}/pred_{average_clips}"])


@torch.inference_mode()
def test_predictions_of_a_batch(reference):
    model = guides_model(reference, "zelda_state_nontrivial").eval()
    batch = ta.collate([reference.packed("demo", "B"), reference.packed("test_mp4", "B")])
    predicted = model(**batch, mode="predict")
    expected = reference.arrays("c_model")["nontrivial/batch_demo_testmp4/B/pred_prob"]
    close(torch.stack([sample.pred_score for sample in predicted]), expected)
    assert [sample.pred_label.item() for sample in predicted] == expected.argmax(axis=1).tolist()


# ---------------------------------------------------------------------------------------------------------------------
# d: three steps of training
# ---------------------------------------------------------------------------------------------------------------------

# A constant that is added before a batch norm changes nothing, so these gradients are rounding noise (1e-7 to 1e-6).
NOISE = ("backbone.conv1.0.bias", "backbone.conv.0.bias")
# Compared with the gradients in float64, ours are right to 3e-6 of the norm of their tensor, the reference's to 8e-5.
GRADIENT_TOLERANCE = 1e-4


def test_three_steps_of_training(reference):
    expected, arrays = reference.json("d_train"), reference.arrays("d_train")
    pipeline = ta.Compose([
        ta.VideoInit(), ta.VideoSample(16, 1, test_mode=True), ta.VideoDecode(), ta.VideoResize(256),
        ta.VideoCrop(224), ta.VideoFormat(), ta.VideoPack(),
    ])
    clips = ("demo", "test_mp4")
    items = [pipeline({"filename": reference.clip(clip), "label": label}) for label, clip in enumerate(clips)]
    assert [sha(item["inputs"]) for item in items] == arrays["input_sha"].tolist()

    batch = ta.collate(items)
    model = guides_model(reference, "zelda_state", dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(3):
        loss = model(**batch, mode="loss")["loss_cls"]
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert loss.item() == pytest.approx(expected["step0"]["loss"], rel=1e-5)
            for key, weight in model.named_parameters():
                gradient, norm = weight.grad.flatten()[:512], expected["step0"]["grad_norms"][key]
                if key in NOISE:
                    assert weight.grad.norm() < 1e-5
                else:
                    assert weight.grad.norm().item() == pytest.approx(norm, rel=3e-5), key
                    error = np.abs(gradient.numpy() - arrays[f"grad0/{key}"]).max()
                    assert error < GRADIENT_TOLERANCE * norm, key
        else:  # Adam turns the rounding noise into steps of full size, so later numbers agree to about 1e-2
            assert loss.item() == pytest.approx(expected[f"step{step}"]["loss"], rel=1e-2)
        optimizer.step()


# ---------------------------------------------------------------------------------------------------------------------
# e: metrics
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rand2", "ties3level", "alltie"])
def test_mean_class_accuracy_and_confusion_matrix(name, reference):
    expected, arrays = reference.json("e_metrics")[name], reference.arrays("e_metrics")
    scores, labels = arrays[f"{name}/scores"], arrays[f"{name}/labels"]
    K = scores.shape[1]

    # Our one rule for ties, the lowest class, is that of MMAction2's mean_class_accuracy and confusion matrix: equal.
    assert ta.mean_class_accuracy(scores, labels) == pytest.approx(expected["mean_class_accuracy"], rel=1e-12)
    for normalize, matrix in expected["confusion"].items():
        normalize = None if normalize == "None" else normalize
        actual = ta.confusion_matrix(scores.argmax(axis=1), labels, num_classes=K, normalize=normalize)
        np.testing.assert_allclose(actual, matrix, rtol=1e-12)


def test_top_k_accuracy_without_ties(reference):
    expected, arrays = reference.json("e_metrics")["rand2"], reference.arrays("e_metrics")
    scores, labels = arrays["rand2/scores"], arrays["rand2/labels"]
    assert all(len(set(row)) == len(row) for row in scores.tolist())
    assert ta.top_k_accuracy(scores, labels, expected["topk"]) == pytest.approx(expected["top_k_accuracy"], rel=1e-12)


def test_top_k_accuracy_where_all_scores_are_equal(reference):
    # MMAction2 prefers the highest class here. With the classes numbered backwards that is our rule, the lowest.
    expected, arrays = reference.json("e_metrics")["alltie"], reference.arrays("e_metrics")
    scores, labels = arrays["alltie/scores"], arrays["alltie/labels"]
    mirrored = ta.top_k_accuracy(scores[:, ::-1], scores.shape[1] - 1 - labels, expected["topk"])
    assert mirrored == pytest.approx(expected["top_k_accuracy"], rel=1e-12)


def test_top_k_accuracy_with_some_ties(reference):
    # MMAction2 takes the classes that numpy's argsort puts last. It is not stable, so among equal scores they differ
    # from one processor to the next (with a stable sort it is 0.15, not 0.1667): a number only between two bounds.
    expected, arrays = reference.json("e_metrics")["ties3level"], reference.arrays("e_metrics")
    scores, labels = arrays["ties3level/scores"], arrays["ties3level/labels"]
    own = scores[np.arange(len(labels)), labels][:, None]
    for k, theirs, ours in zip(expected["topk"], expected["top_k_accuracy"],
                               ta.top_k_accuracy(scores, labels, expected["topk"]), strict=True):
        every_tie_lost = np.mean((scores >= own).sum(axis=1) <= k)
        every_tie_won = np.mean((scores > own).sum(axis=1) < k)
        assert every_tie_lost <= theirs <= every_tie_won
        assert every_tie_lost <= ours <= every_tie_won


# ---------------------------------------------------------------------------------------------------------------------
# f: MMAction2's own transforms, where they have a counterpart here
# ---------------------------------------------------------------------------------------------------------------------


class TwoRandoms:
    """MMAction2 draws sizes from numpy's global state and offsets from Python's, whose randint includes the end."""

    def __init__(self, seed):
        np.random.seed(seed)
        random.seed(seed)

    uniform = staticmethod(np.random.uniform)
    random_sample = staticmethod(np.random.random_sample)

    def randint(self, low, high):
        return random.randint(low, high - 1)


def test_uniform_sample(reference):
    entries = [entry for entry in reference.json("f_sampling") if entry["cfg"]["type"] == "UniformSample"]
    for entry in entries:
        config = entry["cfg"]
        # In training MMAction2 draws one clip, whatever num_clips says.
        num_clips = config["num_clips"] if config["test_mode"] else 1
        rng = None if config["test_mode"] else RandintOfNumpy(entry["seed"])
        indices = uniform_indices(entry["total"], config["clip_len"], num_clips, rng)
        assert indices.flatten().tolist() == entry["inds"], entry
    assert len(entries) == 32


class RandintOfNumpy:
    """numpy's global randint, seeded as the reference was."""

    def __init__(self, seed):
        np.random.seed(seed)

    randint = staticmethod(np.random.randint)


@pytest.fixture(scope="module")
def demo_frames(reference):
    """The eight frames of demo.mp4 on which group f was computed."""
    spatial = reference.json("f_spatial")
    frames = ta.open_video(reference.clip("demo")).get_batch(spatial["demo/frame_inds"])
    assert sha(frames) == spatial["demo/decode"]["sha256"]
    return frames


@pytest.mark.parametrize("name, transform", [
    ("Resize(-1,256)", ta.VideoResize(256)),
    ("Resize(224,224)nokeep", ta.VideoResize((224, 224))),
    ("Resize(320,200)", ta.VideoResize(200)),  # MMAction2 fits the frame into 320x200: 266x200
    ("CenterCrop224", ta.VideoCrop(224)),
    ("Flip1", ta.VideoFlip(1.0)),
    *((f"Flip.5/seed{seed}", ta.VideoFlip(0.5)) for seed in range(3)),
])
def test_spatial_transforms(name, transform, reference, demo_frames):
    expected = reference.json("f_spatial")[f"demo/{name}"]
    seed = int(name[-1]) if "seed" in name else 0
    results = {"imgs": list(demo_frames), "img_shape": demo_frames.shape[1:3], "rng": TwoRandoms(seed)}
    results = transform(results)
    assert list(results["img_shape"]) == expected["img_shape"]
    assert sha(np.stack(results["imgs"])) == expected["sha256"]
    assert results.get("flip") == expected.get("flip")


@pytest.mark.parametrize("seed", range(3))
def test_random_resized_crop_draws_the_same_box(seed, reference):
    left, top, right, bottom = reference.json("f_spatial")[f"demo/RandomResizedCrop/seed{seed}"]["crop_bbox"]
    box = ta.VideoRandomResizedCrop(224).draw_box(256, 340, TwoRandoms(seed))
    assert box == (left, top, right - left, bottom - top)


def test_the_evaluation_pipeline_of_tsn(reference):
    expected = reference.json("f_spatial")

    def choose_frames(results):  # MMAction2's SampleFrames, which has no counterpart here
        return results | {"frame_inds": np.array(expected["demo/frame_inds"]), "num_clips": 1, "clip_len": 8}

    pipeline = ta.Compose([
        ta.VideoInit(), choose_frames, ta.VideoDecode(), ta.VideoResize(256), ta.VideoCrop(224), ta.VideoFormat(),
        ta.VideoPack(),
    ])
    packed = pipeline({"filename": reference.clip("demo"), "label": 0})
    frames = packed["inputs"][0].transpose(0, 1)  # (T, C, H, W): MMAction2's 2D recognizers put frames first
    assert sha(frames) == expected["demo/TSNval/packed"]["sha256"]
    normalized = ta.VideoPreprocessor()(packed["inputs"])[0].transpose(0, 1)
    assert sha(normalized) == expected["demo/TSNval/preprocessed"]["sha256"]
