"""e3nn is taken without torch's compiler, and is otherwise what it was."""

from __future__ import annotations

import subprocess
import sys

import torch
from e3nn.math import normalize2mom

PROGRAM = """
import sys
from ase.io import read
from openmm_nequiplr import load_model, shipped_structure
import openmm_nequiplr.simulation.md
model = load_model("dipeptides")
atoms = read(shipped_structure("dipeptides"))
graph = model.build_graph(atoms.numbers, atoms.positions, total_charge=0.0)
openmm_nequiplr.Evaluator(model)(graph)
print("torch._dynamo" in sys.modules, "scipy.stats" in sys.modules)
import torch
from e3nn.o3 import change_basis_real_to_complex, wigner_3j
print(torch.compiler.disable.__module__)
import torch._dynamo
print(float(change_basis_real_to_complex(2).abs().sum()))
"""


def test_models_and_simulations_load_no_compiler():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, encoding="utf-8", check=True
    )
    compiler, where, total = done.stdout.splitlines()
    assert compiler == "False False"
    assert where == "torch.compiler"  # put back
    assert abs(float(total) - (1 + 8 / 2**0.5)) < 1e-6  # with the compiler loaded too


def test_moments_of_modules_are_not_kept():
    class Scaled(torch.nn.Module):
        factor = 2.0

        def forward(self, x):
            return self.factor * x

    scaled = Scaled()
    first = normalize2mom(scaled).cst
    scaled.factor = 4.0
    assert abs(first / normalize2mom(scaled).cst - 2.0) < 1e-12
    silu = [normalize2mom(torch.nn.functional.silu).cst for _ in range(2)]
    assert silu[0] == silu[1] != 1.0
