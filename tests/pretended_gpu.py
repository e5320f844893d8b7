"""A pretended GPU: tensors that report the device `cuda:0`, while their numbers are in the CPU's memory.

A whole `Trainer.fit` runs on it. It finds errors that tests on a CPU cannot: operations on tensors of two devices, a
CPU's random generator for a tensor of the GPU, NumPy views of the GPU's memory, and each place where the host waits for
the GPU. It cannot test the GPU's own kernels: their rounding, memory and speed.

It uses the same internals of PyTorch as `FakeTensorMode`.
"""

import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim.optimizer import _foreach_supported_types
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

aten = torch.ops.aten
GPU = torch.device("cuda:0")
MEMORY = 2**30
"""The bytes of the GPU's memory."""

WAITING = {
    *(aten._local_scalar_dense, aten.nonzero, aten.equal, aten.is_nonzero, aten.masked_select, aten.bincount),
    *(aten._unique2, aten.unique_dim, aten.unique_consecutive, aten._linalg_check_errors),
}
"""Operations whose result, or the shape of whose result, the host must read."""

INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._unsafe_index, aten._index_put_impl_}


@dataclass(frozen=True)
class Wait:
    """A place where the host waits for the GPU.

    Attributes:
        operation: The operation that the host waits for.
        callers: The names of the functions on the stack, innermost first.
        where: The file and line of the innermost function that is not PyTorch's.
    """

    operation: str
    callers: tuple[str, ...]
    where: str

    @classmethod
    def here(cls, operation: str) -> "Wait":
        """Make the wait of the running function."""
        frame, callers, where = inspect.currentframe(), [], ""
        while frame is not None:
            file = frame.f_code.co_filename
            callers.append(frame.f_code.co_name)
            if not where and "/torch/" not in file and file != __file__:
                where = f"{file}:{frame.f_lineno}"
            frame = frame.f_back
        return cls(operation, tuple(callers), where)


class GPUTensor(Tensor):
    """A tensor that reports to be on the GPU; PyTorch itself sees one without memory (`meta`)."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "GPUTensor":
        shape = torch.empty_strided(numbers.shape, numbers.stride(), dtype=numbers.dtype, device="meta")
        made = Tensor._make_subclass(cls, shape, numbers.requires_grad, device_for_backend_keys=GPU)
        made.numbers = numbers
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The GPU."""
        return GPU

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        """Return the tensor without its history."""
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        assert isinstance(other, GPUTensor)
        self.numbers = other.numbers
        Tensor.data.__set__(self, other)  # type: ignore[attr-defined]

    def tolist(self) -> Any:
        """See `torch.Tensor.tolist`."""
        return self.cpu().tolist()

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """See `torch.Tensor.new_tensor`."""
        return torch.tensor(data, dtype=dtype or self.dtype, **kwargs).to(GPU)

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as a tensor on a GPU does."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.numbers.detach().__reduce_ex__(protocol)  # is saved as what every reader makes of it

    def __repr__(self, **kwargs: Any) -> str:
        return f"GPUTensor({self.numbers})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the pretended GPU, outside of it")


class PretendedGPU(TorchDispatchMode):
    """Within a `with`, tensors can be moved to `cuda:0`.

    Attributes:
        waits: Where the host has waited so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []
        self._before: list[tuple[bool, bool, Any]] = []

    def __enter__(self) -> "PretendedGPU":
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        functions = torch.cuda._lazy_init, torch.cuda.current_device, torch.cuda.mem_get_info
        self._before.append((torch._C._only_lift_cpu_tensors(), overwrite, functions))
        torch.cuda._lazy_init, torch.cuda.current_device = lambda: None, lambda: 0
        torch.cuda.mem_get_info = lambda device=None: (MEMORY, MEMORY)
        torch._C._set_only_lift_cpu_tensors(True)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        _foreach_supported_types.append(GPUTensor)  # so that optimizers take their default of a GPU
        super().__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        _foreach_supported_types.remove(GPUTensor)
        lift, overwrite, functions = self._before.pop()
        torch.cuda._lazy_init, torch.cuda.current_device, torch.cuda.mem_get_info = functions
        torch._C._set_only_lift_cpu_tensors(lift)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)

    @staticmethod
    def strategy() -> SingleDeviceStrategy:
        """Make the strategy of a trainer on this GPU."""
        return SingleDeviceStrategy(GPU, accelerator=_PretendedAccelerator())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and _is_composite(func):
            with self:
                return func.decompose(*args, **kwargs)
        if func is aten._pin_memory.default:
            pinned = args[0].clone()
            pinned.is_pinned_memory = True
            return pinned
        values, structure = tree_flatten((args, kwargs))
        on_gpu = self._is_on_gpu(func, values, kwargs)
        self._check(func, values, args, kwargs, on_gpu)
        args_there, kwargs_there = tree_unflatten([_there(value) for value in values], structure)
        result = func(*args_there, **kwargs_there)
        if not on_gpu:
            return result
        wrapped = tree_map_only(Tensor, GPUTensor, result)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)

    @staticmethod
    def _is_on_gpu(func: Any, values: list[Any], kwargs: dict[str, Any]) -> bool:
        """Tell whether the result is on the GPU."""
        if func is aten._local_scalar_dense.default:
            return False
        if func is aten.copy_.default:
            return isinstance(values[0], GPUTensor)
        device = kwargs.get("device")
        if device is not None:  # PyTorch makes scalars of a tensor's device, which it takes for meta
            return device.type in ("cuda", "meta")
        return any(isinstance(value, GPUTensor) for value in values)

    def _check(self, func: Any, values: list[Any], args: Any, kwargs: dict[str, Any], on_gpu: bool) -> None:
        """Refuse the operations that a GPU refuses, and note a wait."""
        there = [value for value in values if isinstance(value, GPUTensor)]
        here = [value for value in values if isinstance(value, Tensor) and not isinstance(value, GPUTensor)]
        packet = func.overloadpacket
        if packet in (aten._to_copy, aten.copy_):
            source = args[1] if packet is aten.copy_ else args[0]
            free = on_gpu and _is_non_blocking(args, kwargs) and hasattr(source, "is_pinned_memory")
            if isinstance(source, GPUTensor) != on_gpu and not free:
                self.waits.append(Wait.here(f"{packet} from {'processor' if on_gpu else 'GPU'}"))
            return
        if there and any(value.ndim for value in here):
            raise RuntimeError(f"{func} has tensors of cuda:0 and cpu, of {[tuple(value.shape) for value in here]}")
        generator = kwargs.get("generator")
        if on_gpu and generator is not None and generator.device.type != "cuda":
            raise RuntimeError(f"{func} needs a generator of cuda:0, not of {generator.device}")
        masked = packet in INDEXING and any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
        if there and (packet in WAITING or masked):
            self.waits.append(Wait.here(str(packet)))


@cache
def _is_composite(func: Any) -> bool:
    """Tell whether an operation is composed of others, which inference mode does not decompose itself."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _is_non_blocking(args: Any, kwargs: dict[str, Any]) -> bool:
    """Tell whether a copy is non-blocking."""
    return bool(kwargs.get("non_blocking") or args[2:3] == (True,))


def _there(value: Any) -> Any:
    """Return the argument of an operation on the GPU, in the CPU's memory."""
    if isinstance(value, GPUTensor):
        return value.numbers
    if isinstance(value, torch.device) and value.type in ("cuda", "meta"):
        return torch.device("cpu")
    return value


class _PretendedAccelerator(Accelerator):
    """Lightning's view of the GPU."""

    def setup_device(self, device: torch.device) -> None:
        """Do nothing."""

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        """Return no statistics."""
        return {}

    def teardown(self) -> None:
        """Do nothing."""

    @staticmethod
    def parse_devices(devices: Any) -> Any:
        """Return the devices as given."""
        return devices

    @staticmethod
    def get_parallel_devices(devices: Any) -> Any:
        """The GPU."""
        return [GPU]

    @staticmethod
    def auto_device_count() -> int:
        """Return 1."""
        return 1

    @staticmethod
    def is_available() -> bool:
        """Return True."""
        return True

    @staticmethod
    def name() -> str:
        """Return the name in messages."""
        return "pretended"
