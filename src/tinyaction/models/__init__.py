"""The recognizers: preprocessor, backbone, head, and how they are put together."""

from tinyaction.models.backbones import Conv3dBackbone, ConvBackbone, TemporalShiftConvBackbone
from tinyaction.models.create import all_models, check_input, create_model, input_rule, model_arguments
from tinyaction.models.heads import PoolingHead, TemporalAverageHead
from tinyaction.models.recognizer import Recognizer, VideoPreprocessor
from tinyaction.models.temporal_shift import TemporalShift, temporal_shift
from tinyaction.models.weights import LoadedWeights, load_weights

__all__ = ["Conv3dBackbone", "ConvBackbone", "LoadedWeights", "PoolingHead", "Recognizer", "TemporalAverageHead",
           "TemporalShift", "TemporalShiftConvBackbone", "VideoPreprocessor", "all_models", "check_input",
           "create_model", "input_rule", "load_weights", "model_arguments", "temporal_shift"]
