"""Compiles Triton kernels for GPUs that are not there: registers and spills, as JSON.

A script of its own, as Triton either interprets its functions or compiles them, for good.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import launches
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64"}
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def resources(kernel, arguments, warps, constants, capability) -> dict[str, int]:
    """Registers of a thread, and bytes spilled by it."""
    names = kernel.arg_names
    signature = {
        name: "i32" if isinstance(value, int) else TYPES[value.dtype]
        for name, value in zip(names, arguments, strict=False)
    }
    signature |= dict.fromkeys(constants, "constexpr")
    constexprs = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    target = GPUTarget("cuda", capability, 32)
    built = triton.compile(source, target=target, options={"num_warps": warps})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(built.asm["cubin"])
        command = [CUOBJDUMP, "--dump-resource-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", shown)}
    return {"registers": numbers["REG"], "spilled": numbers["STACK"] + numbers["LOCAL"]}


def main() -> None:
    """Compile what the operators launch, for the products and orders of :mod:`launches`."""
    found, cases = {}, []

    def instead(kernel, programs, *arguments, warps=1, **constants):
        for capability in (80, 90):
            name = f"{cases[-1]} {kernel.__name__} sm_{capability}"
            found[name] = resources(kernel, arguments, warps, constants, capability)

    for module in launches.MODULES:
        module.launch = instead
    for case, run in launches.CASES.items():
        cases.append(case)
        run()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
