"""The recognizers: preprocessor, backbone, head, and how they are put together."""

from tinyaction.models.backbones import Conv3dBackbone, ConvBackbone
from tinyaction.models.create import MODELS, create_model
from tinyaction.models.heads import TemporalAverageHead
from tinyaction.models.recognizer import Recognizer, VideoPreprocessor

__all__ = ["MODELS", "Conv3dBackbone", "ConvBackbone", "Recognizer", "TemporalAverageHead", "VideoPreprocessor",
           "create_model"]
