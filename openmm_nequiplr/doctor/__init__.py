"""Is the installation fit? Each part is tried in a process of its own."""

from .calibration import calibrate
from .examination import CHECKS, examine
from .findings import Finding, report
from .machine import describe_installation

__all__ = ["CHECKS", "Finding", "calibrate", "describe_installation", "examine", "report"]
