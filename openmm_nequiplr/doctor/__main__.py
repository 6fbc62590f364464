"""``python -m openmm_nequiplr.doctor NAME`` runs one check and prints its finding as JSON."""

from __future__ import annotations

import sys

from .examination import tell
from .probes import probe

if __name__ == "__main__":
    tell(probe(sys.argv[1]))
