"""Check of the installation; each part runs in a separate process."""

from .calibration import calibrate
from .examination import CHECKS, examine
from .findings import Finding, report
from .machine import describe_installation

__all__ = ["CHECKS", "Finding", "calibrate", "describe_installation", "examine", "report"]
