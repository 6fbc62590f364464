"""The fast path of inference on the processor."""
from .switch import fused_convolutions, fused_inference
