"""``python -m openmm_nequiplr`` is the command ``nequiplr``."""

from __future__ import annotations

import sys

from openmm_nequiplr.cli import main

if __name__ == "__main__":
    sys.exit(main())
