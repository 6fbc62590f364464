"""Tensors that hold CPU data, say that they are on a GPU, and count what a GPU would do.

Inside ``pretended_cuda()`` the device ``"cuda"`` exists. What a GPU refuses is refused: NumPy, and
operations between devices. Kernels, copies and synchronisations are counted. Operators of this
package run their CUDA functions with launches that do no more than count, and take their values
from the kernels for the CPU, so that control flow is real. A recording repeats the operations on
the tensors that it was made with. It refuses to wait for the device, to copy from the host, and to
launch a kernel that would have to be compiled or an FFT that would have to be planned. Its results
are not numbers before it is repeated, and it keeps none of its inputs alive.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

import openmm_nequiplr.electrostatics  # noqa: F401  (operators are registered where they are used)
from openmm_nequiplr import device_neighbors
from openmm_nequiplr.model import replay
from openmm_nequiplr.ops import choice

PACKAGE = "openmm_nequiplr"
CUDA = torch.device("cuda", 0)

#: Operations that launch nothing.
VIEWS = {
    "_conj", "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "empty",
    "empty_like", "empty_strided", "expand", "is_same_size", "lift_fresh", "narrow", "new_empty",
    "new_empty_strided", "permute", "resize_", "select", "slice", "split", "split_with_sizes",
    "squeeze", "sym_size", "t", "transpose", "unbind", "unfold", "unsafe_split", "unsqueeze",
    "view", "view_as_complex", "view_as_real",
}  # fmt: skip
#: Operations that wait for the device.
WAITS = {
    "_linalg_check_errors", "_local_scalar_dense", "_unique2", "bincount", "equal", "is_nonzero",
    "masked_select", "nonzero", "unique_consecutive", "unique_dim",
}  # fmt: skip
#: Operations that libraries may do in ways that cannot be recorded.
SOLVERS = {
    "_linalg_det", "_linalg_eigh", "_linalg_slogdet", "_linalg_solve_ex", "_linalg_svd",
    "linalg_cholesky_ex", "linalg_inv_ex", "linalg_ldl_factor_ex", "linalg_lu_factor_ex",
    "linalg_lu_solve", "linalg_qr",
}  # fmt: skip
#: Operations that take no single numbers of the host among tensors on the device.
STRICT = {"cat", "copy_", "dot", "index_put", "index_put_", "mm", "mv", "scatter", "stack"}
#: Functions that make tensors out of nothing, for which they launch a kernel, and out of data.
FILLS = {
    torch.zeros, torch.ones, torch.empty, torch.full, torch.arange, torch.eye, torch.linspace,
    torch.rand, torch.randn, torch.fft.fftfreq, torch.fft.rfftfreq, torch.triu_indices,
    torch.tril_indices,
}  # fmt: skip
_search = device_neighbors.search
PRODUCTS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.__rmatmul__}
COPIES = {torch.tensor, torch.as_tensor, torch.asarray}


class Counts:
    """What happened on the pretended device, with the line of the package that asked for it.

    Attributes
    ----------
    kernels, waits, copies, numpy : collections.Counter
        Of ``"operation file:line"``: launches, synchronisations, copies between host and device,
        and arrays made of tensors or tensors of arrays.
    """

    def __init__(self) -> None:
        self.kernels: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.copies: collections.Counter[str] = collections.Counter()
        self.numpy: collections.Counter[str] = collections.Counter()

    def totals(self) -> dict[str, int]:
        """The sums."""
        kernels, waits, copies, numpy = (
            each.total() for each in (self.kernels, self.waits, self.copies, self.numpy)
        )
        return {"kernels": kernels, "waits": waits, "copies": copies, "numpy": numpy}

    def clear(self) -> None:
        """Start again."""
        for each in (self.kernels, self.waits, self.copies, self.numpy):
            each.clear()


def _place() -> str:
    """The line of the package that is being run."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if f"/{PACKAGE}/" in name:
            return f"{name.rsplit(f'/{PACKAGE}/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


class Pretended(torch.Tensor):
    """A tensor that says it is on the GPU; ``elem`` holds its data."""

    elem: torch.Tensor
    mode: Pretender

    @staticmethod
    def __new__(cls, elem: torch.Tensor, mode: Pretender) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls, elem.size(), strides=elem.stride(), storage_offset=elem.storage_offset(),
            dtype=elem.dtype, layout=elem.layout, device=elem.device,
        )  # fmt: skip
        made.elem, made.mode = elem, mode
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        """Number of the device; what is stored is on none."""
        return -1

    def __repr__(self) -> str:
        return f"Pretended({self.elem!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Pretended:
        copy = Pretended(self.elem.clone(), self.mode).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy._is_param = True
        return copy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat, _ = tree_flatten((args, kwargs or {}))
        # tensors that were cached under an earlier mode belong to the present one
        mode = Pretender.current or next(each.mode for each in flat if isinstance(each, Pretended))
        return mode.dispatch(func, args, kwargs or {}, flat)


class Outside:
    """Memory that a recording reads and that is not its own."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.memory = StorageWeakRef(tensor.untyped_storage())
        self.dtype, self.line = tensor.dtype, _place()
        self.where = tensor.storage_offset(), tensor.size(), tensor.stride()

    def read(self) -> torch.Tensor:
        """The tensor."""
        memory = torch.UntypedStorage._new_with_weak_ptr(self.memory.cdata)
        if memory is None:
            raise RuntimeError(f"a recording reads freed memory at {self.line}")
        return torch.empty(0, dtype=self.dtype).set_(memory, *self.where)


class Pretender(TorchFunctionMode):
    """The device itself."""

    current: Pretender | None = None

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.backward, self.silent = Counts(), 0, 0
        self.recorded: list[Callable[[], object]] | None = None
        self.own: dict[int, torch.Tensor] = {}  # what a recording made, by its storage
        self.ready: set[Any] = set()  # kernels that are compiled, and FFTs that are planned

    def refuse(self, what: str) -> None:
        """Raise an error while kernels are being recorded."""
        if self.recorded is not None:
            raise RuntimeError(f"not permitted while kernels are recorded: {what}, at {_place()}")

    def record(self, step: Callable[[], object], results: Any) -> None:
        """Keep an operation, if kernels are being recorded, with the tensors it wrote to."""
        if self.recorded is None:
            return
        before = self.keep(results)

        def again() -> None:
            after = [each for each in tree_flatten(step())[0] if isinstance(each, torch.Tensor)]
            for old, new in zip(before, after, strict=True):
                if old is not new:
                    old.copy_(new)

        self.recorded.append(again)

    def keep(self, results: Any) -> list[torch.Tensor]:
        """Tensors of results; while kernels are being recorded they belong to the recording."""
        tensors = [each for each in tree_flatten(results)[0] if isinstance(each, torch.Tensor)]
        if self.recorded is not None:
            self.own.update((_memory(each), each) for each in tensors)
        return tensors

    def held(self, values: Any) -> Callable[[], Any]:
        """Values with the data of tensors, to be read now, or whenever a recording is repeated."""
        if self.recorded is None:
            plain = tree_map(_data, values)
            return lambda: plain

        def hold(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            if not isinstance(x, Pretended) and x.dim() == 0:
                return x.clone()
            return _data(x) if _memory(_data(x)) in self.own else Outside(_data(x))

        known = tree_map(hold, values)
        return lambda: tree_map(lambda x: x.read() if isinstance(x, Outside) else x, known)

    def wrap(self, value: Any) -> Any:
        """Put tensors on the device."""

        def put(x: Any) -> Any:
            plain = isinstance(x, torch.Tensor) and not isinstance(x, Pretended)
            return Pretended(x, self) if plain else x

        return tree_map(put, value)

    def launched(self, kernel: Any, programs: int, *arguments: Any, **constants: Any) -> None:
        """In place of :func:`openmm_nequiplr.ops.triton_launch.launch`."""
        if programs > 0:
            given = tuple(map(_specialised, arguments))
            self.need(kernel.__name__, (kernel, given, tuple(constants.items())))
            self.counts.kernels[f"{kernel.__name__} {_place()}"] += 1

    def need(self, what: str, key: Any) -> None:
        """Prepare what a kernel or an FFT needs, unless it is known."""
        if key not in self.ready:
            self.refuse(f"first {what}")
            self.ready.add(key)

    def searched(self, points: Any, cell: Any, *arguments: Any) -> Any:
        """In place of :func:`openmm_nequiplr.device_neighbors.search`."""
        self.refuse("search")
        self.counts.kernels[f"search {_place()}"] += 1
        self.counts.waits[f"search {_place()}"] += 1
        return self.wrap(_search(points.elem, cell.elem, *arguments))

    # ------------------------------------------------------------------ below autograd
    def dispatch(self, func: Any, args: Any, kwargs: Any, flat: list[Any]) -> Any:
        """Run one operation of torch on the data, and count it."""
        name = func._schema.name.split("::")[1]
        self._check_devices(name, args, flat)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        self._check_writes(func, args)
        known = self.held((args, kwargs))
        plain = tree_map(_data, (args, kwargs))
        result = func(*plain[0], **plain[1])
        self._count(name, args)

        def again() -> Any:
            given, named = known()
            return func(*given, **named)

        if name not in VIEWS:
            self.record(again, result)
        elif "empty" in name:
            self.keep(result)
        if func._schema.is_mutable and isinstance(result, torch.Tensor):
            for each in (*args, *kwargs.values()):
                if isinstance(each, Pretended) and each.elem is result:
                    return each
        return self.wrap(result)

    def _check_devices(self, name: str, args: Any, flat: list[Any]) -> None:
        tensors = [each for each in flat if isinstance(each, torch.Tensor)]
        least = 0 if name in STRICT and isinstance(args[0], Pretended | list | tuple) else 1
        strange = [x for x in tensors if not isinstance(x, Pretended) and x.dim() >= least]
        if not strange or self.backward:
            return
        if name == "copy_" or (name.startswith("index") and isinstance(args[0], Pretended)):
            self.refuse(name)
            self.counts.copies[f"{name} {_place()}"] += 1
            return
        shapes = [tuple(x.shape) for x in tensors]
        raise RuntimeError(f"tensors on two devices in {name}, shapes {shapes}, at {_place()}")

    def _check_writes(self, func: Any, args: Any) -> None:
        """A recorded operation may run at any time: it changes nothing but what it made."""
        if self.recorded is None or not func._schema.is_mutable:
            return
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, Pretended) and _memory(value.elem) not in self.own:
                self.refuse(f"{func} in place")

    def _count(self, name: str, args: Any) -> None:
        masks = name == "index" and any(
            isinstance(each, torch.Tensor) and each.dtype == torch.bool for each in args[1]
        )
        if name in SOLVERS:
            self.refuse(name)
        if name.startswith("_fft"):
            x = args[0]
            self.need(name, (name, x.dtype, x.size(), x.stride(), tuple(args[1]), *args[2:]))
        if name in WAITS or masks:
            self.refuse(name)
            self.counts.waits[f"{name} {_place()}"] += 1
        elif name not in VIEWS:
            self.counts.kernels[f"{name} {_place()}"] += 1

    # ------------------------------------------------------------------ above autograd
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if self.silent:
            return func(*args, **kwargs)
        if isinstance(func, torch._ops.OpOverloadPacket | torch._ops.OpOverload):
            name = func._qualified_op_name if hasattr(func, "_qualified_op_name") else func.name()
            if name.startswith(f"{PACKAGE}::") and _on_device(args):
                return self.operator(name.split("::")[1].split(".")[0], args)
        if func in PRODUCTS and len(args) == 2 and _on_device(args):
            left, right = reversed(args) if func is torch.Tensor.__rmatmul__ else args
            if left.dim() == 1 and right.dim() == 2:  # else torch reshapes a result in place
                return torch.mm(left.unsqueeze(0), right).squeeze(0)
        if func in (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu):
            return self._moved(func, args, kwargs)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            if isinstance(first, Pretended):
                raise TypeError(f"a tensor on the GPU is no array, at {_place()}")
            self.counts.numpy[f"numpy {_place()}"] += 1
        if func is torch.Tensor.tolist and isinstance(first, Pretended):
            self.refuse("tolist")
            self.counts.waits[f"tolist {_place()}"] += 1
            return first.elem.tolist()
        if func is torch.Tensor.new_tensor and isinstance(first, Pretended):
            self.refuse("new_tensor")
            self.counts.copies[f"new_tensor {_place()}"] += 1
            return self.wrap(first.elem.new_tensor(_data(args[1]), **kwargs))
        if func is torch.nn.functional.one_hot and isinstance(first, Pretended):
            self.counts.kernels.update({f"zeros {_place()}": 1, f"scatter_ {_place()}": 1})
            known = self.held(args)
            made = func(*known(), **kwargs)
            self.record(lambda: func(*known(), **kwargs), made)
            return self.wrap(made)
        if func in FILLS | COPIES and _is_cuda(kwargs.get("device")):
            return self._made(func, args, kwargs)
        return func(*args, **kwargs)

    def operator(self, name: str, args: Any) -> Any:
        """An operator of this package."""
        family, function, _ = choice.OPERATORS[name]
        with self:
            result = getattr(choice.kernels(family, "cuda"), function)(*args)
        known = self.held([_state(each) for each in args])

        def run() -> Any:
            self.silent += 1
            try:
                return getattr(choice.kernels(family, "cpu"), function)(*known())
            finally:
                self.silent -= 1

        values = run()
        flat, real = tree_flatten(result)[0], tree_flatten(values)[0]
        pairs = [
            (one.elem, other)
            for one, other in zip(flat, real, strict=False)
            if one.shape == other.shape and one.dtype == other.dtype
        ]
        for one, other in pairs:
            one.copy_(other)
        self.record(run, values)
        for one, other in pairs:
            self.record(lambda other=other: other, one)
        flat[0].state = values
        return result

    def _made(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """A tensor that is made on the device."""
        known = func in COPIES
        if known and isinstance(args[0], Pretended):
            return args[0].to(dtype=kwargs.get("dtype", args[0].dtype))
        if known:
            self.refuse(func.__name__)
        (self.counts.copies if known else self.counts.kernels)[f"{func.__name__} {_place()}"] += 1
        kwargs["device"] = torch.device("cpu")
        plain = tree_map(_data, args)  # numbers, except for copies, which are not recorded
        made = func(*plain, **kwargs)
        self.record(lambda: func(*plain, **kwargs), made)
        return self.wrap(made)

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Any:
        """``to``, ``cpu`` and ``cuda``."""
        tensor, *rest = args
        device, dtype = kwargs.get("device"), kwargs.get("dtype")
        if func is not torch.Tensor.to:
            device = "cpu" if func is torch.Tensor.cpu else "cuda"
        for each in rest:
            if isinstance(each, torch.Tensor):
                device, dtype = each.device, each.dtype
            elif isinstance(each, torch.dtype):
                dtype = each
            elif isinstance(each, str | torch.device):
                device = each
        if dtype is not None and dtype != tensor.dtype:
            tensor = torch.Tensor.to(tensor, dtype)
        if device is None or _is_cuda(device) == isinstance(tensor, Pretended):
            return tensor.clone() if kwargs.get("copy") else tensor
        self.refuse(f"to {device}")
        self.counts.copies[f"to {device} {_place()}"] += 1
        return _Across.apply(tensor, self)


class PretendedRecording:
    """In place of :class:`openmm_nequiplr.recording.Recording`."""

    def __init__(
        self, mode: Pretender, function: Callable[[], Any], device: Any, owner: Any = None
    ) -> None:
        self.mode, self.steps = mode, []
        before, mode.counts.kernels = mode.counts.kernels, collections.Counter()
        mode.recorded, mode.own = self.steps, {}
        try:
            self.result = function()
            for each in mode.own.values():
                each.detach().fill_(float("nan") if each.dtype.is_floating_point else 0)
        finally:
            mode.recorded, mode.own = None, {}
            self.kernels, mode.counts.kernels = mode.counts.kernels, before

    def replay(self) -> None:
        """Run the operations again."""
        self.mode.counts.kernels.update(self.kernels)
        with torch.no_grad():
            for step in self.steps:
                step()


class _Across(torch.autograd.Function):
    """A copy on the other device."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, mode: Pretender) -> torch.Tensor:
        ctx.mode = mode
        if isinstance(tensor, Pretended):
            return tensor.elem.detach().clone()
        return Pretended(tensor.detach().clone(), mode)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        return _Across.apply(gradient, ctx.mode), None


def _memory(tensor: torch.Tensor) -> int:
    """Number of the memory of a tensor."""
    return int(tensor.untyped_storage()._cdata)


def _specialised(argument: Any) -> Any:
    """What Triton compiles a kernel for, of one of its arguments."""
    if isinstance(argument, torch.Tensor):
        return argument.dtype, argument.storage_offset() * argument.itemsize % 16 == 0
    if isinstance(argument, int):
        return argument == 1, argument % 16 == 0, argument >= 2**31
    return type(argument)


def _data(x: Any) -> Any:
    return x.elem if isinstance(x, Pretended) else x


def _state(argument: Any) -> Any:
    """What the CPU's kernels have in place of a list of tensors that those for CUDA returned."""
    if isinstance(argument, list) and argument:
        return getattr(argument[0], "state", argument)
    return argument


def _on_device(args: Any) -> bool:
    return any(isinstance(each, Pretended) for each in tree_flatten(args)[0])


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


@contextlib.contextmanager
def pretended_cuda() -> Iterator[Counts]:
    """Let ``"cuda"`` be a device inside a ``with`` block; what happens on it is counted."""
    mode, run, from_numpy = Pretender(), torch.autograd._engine_run_backward, torch.from_numpy
    families = [
        choice.kernels(family, "cuda")
        for family in sorted(
            {f for f, _, devices in choice.OPERATORS.values() if "cuda" in devices}
        )
    ]

    def run_backward(*args: Any, **kwargs: Any) -> Any:
        mode.backward += 1
        try:
            with mode:
                return run(*args, **kwargs)
        finally:
            mode.backward -= 1

    def counted(array: Any) -> torch.Tensor:
        if not mode.silent:
            mode.counts.numpy[f"from_numpy {_place()}"] += 1
        return from_numpy(array)

    with contextlib.ExitStack() as stack:
        for module, name, value in (
            *((family, "launch", mode.launched) for family in families),
            (torch.autograd, "_engine_run_backward", run_backward),
            (torch, "from_numpy", counted),
            (device_neighbors, "search", mode.searched),
            (replay, "Recording", functools.partial(PretendedRecording, mode)),
        ):
            stack.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        future = torch.__future__
        before = future.get_overwrite_module_params_on_conversion()
        stack.callback(future.set_overwrite_module_params_on_conversion, before)
        future.set_overwrite_module_params_on_conversion(True)
        stack.callback(setattr, Pretender, "current", Pretender.current)
        Pretender.current = mode
        with mode:
            yield mode.counts
