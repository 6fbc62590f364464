"""Units of the package: Å, eV and e.

Only :mod:`openmm_nequiplr.simulation` uses nm and kJ/mol. The constants are from CODATA 2018.
"""

from __future__ import annotations

#: Coulomb constant e² / (4π ε0) in eV Å.
COULOMB_CONSTANT: float = 14.399645478425668
#: One electronvolt in kJ/mol.
EV_TO_KJ_PER_MOL: float = 96.48533212331002
#: One nanometre in Å.
ANGSTROM_PER_NM: float = 10.0
#: One Bohr radius in Å.
BOHR: float = 0.529177210903
#: One Hartree in eV.
HARTREE: float = 27.211386245988
#: Boltzmann constant in eV/K.
BOLTZMANN: float = 8.617333262145179e-05
