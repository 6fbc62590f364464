"""Stability check of a model: forces, displaced minimisations, short MD, pair scans, charges."""

from .check import check_file, check_model, check_trained, record_check, write_report
from .options import CheckOptions
from .report import StabilityReport

__all__ = [
    "CheckOptions",
    "StabilityReport",
    "check_file",
    "check_model",
    "check_trained",
    "record_check",
    "write_report",
]
