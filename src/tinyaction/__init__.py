"""tinyaction: video action recognition in plain PyTorch.

The wings, in the order in which they build on one another; each imports only from those above it:

    video               from a path to frames
    data, models        from a list to batches; from pixels to scores
    prepare             before training: stored frames, checked files, sets of clips
    results             what came out: metrics, evaluation, the folder of a run, its report
    training, inference from a config to a run; with a trained model
    cli                 one module a command

Letters of dimensions, everywhere:

    B videos of a batch    V views (clips) of a video    T frames of a view    C colour channels, RGB
    H W height and width in pixels    F features    K classes    N any of these flattened together
"""

import torch  # noqa: F401  (before decord: the other order has crashed)

from tinyaction.data.annotations import DataFolder, VideoList, find_data, read_list
from tinyaction.data.dataset import VideoDataset, build_dataloader, collate
from tinyaction.data.loader import VideoLoader
from tinyaction.data.pipelines import eval_pipeline, train_pipeline
from tinyaction.data.transforms import (
    Compose,
    DenseSample,
    IntervalSample,
    UniformSample,
    VideoCrop,
    VideoDecode,
    VideoFlip,
    VideoFormat,
    VideoInit,
    VideoPack,
    VideoRandomResizedCrop,
    VideoResize,
    VideoSample,
)
from tinyaction.device import choose_device
from tinyaction.inference.embedder import Embedder
from tinyaction.inference.prediction import Prediction
from tinyaction.inference.predictor import Predictor
from tinyaction.models import (
    Conv3dBackbone,
    ConvBackbone,
    Recognizer,
    TemporalAverageHead,
    VideoPreprocessor,
    create_model,
)
from tinyaction.models.checkpoint import Checkpoint, load_model
from tinyaction.models.pretrained import load_pretrained
from tinyaction.results.evaluation import Evaluation, evaluate
from tinyaction.results.metrics import confusion_matrix, mean_class_accuracy, top_k_accuracy
from tinyaction.results.neighbors import ClipLibrary
from tinyaction.results.sheets import Clip
from tinyaction.results.timeline import TimelinePredictor
from tinyaction.sample import DataSample
from tinyaction.training.config import RunConfig, default_hyperparameters
from tinyaction.training.finetune import Criterion, create_average, freeze
from tinyaction.training.loop import Callbacks, fit, train_one_epoch
from tinyaction.training.run import RunResult, train
from tinyaction.training.schedule import learning_rate
from tinyaction.training.updater import Updater, create_optimizer
from tinyaction.version import __version__
from tinyaction.video import VideoError, open_video

__all__ = [
    # from a path to frames
    "open_video", "VideoError",
    # from a list to batches
    "find_data", "read_list", "DataFolder", "VideoList",
    "Compose", "VideoInit", "VideoSample", "UniformSample", "IntervalSample", "DenseSample", "VideoDecode",
    "VideoResize", "VideoCrop", "VideoRandomResizedCrop", "VideoFlip", "VideoFormat", "VideoPack", "DataSample",
    "train_pipeline", "eval_pipeline", "VideoDataset", "collate", "build_dataloader", "VideoLoader",
    # from pixels to scores
    "create_model", "load_pretrained", "VideoPreprocessor", "ConvBackbone", "Conv3dBackbone", "TemporalAverageHead",
    "Recognizer", "Checkpoint", "load_model", "choose_device",
    # what came out
    "evaluate", "Evaluation", "top_k_accuracy", "mean_class_accuracy", "confusion_matrix", "Clip",
    "ClipLibrary",
    # from a config to a run
    "RunConfig", "default_hyperparameters", "train", "RunResult",
    "learning_rate", "create_optimizer", "create_average", "Updater", "Criterion", "freeze",
    "train_one_epoch", "fit", "Callbacks",
    # with a trained model
    "Predictor", "Prediction", "Embedder", "TimelinePredictor",
    "__version__",
]
