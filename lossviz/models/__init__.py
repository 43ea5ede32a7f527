"""The networks of the lessons, each a plain ``nn.Module``: from a single layer to hundreds."""

from lossviz.models.detector import ssd300, ssdlite, tiny_ssd
from lossviz.models.looks_linear import looks_linear
from lossviz.models.perceptron import logistic, mlp
from lossviz.models.plain import vgg
from lossviz.models.residual import resnet
from lossviz.models.stored import load_weights, pretrained

__all__ = [
    "load_weights",
    "logistic",
    "looks_linear",
    "mlp",
    "pretrained",
    "resnet",
    "ssd300",
    "ssdlite",
    "tiny_ssd",
    "vgg",
]
