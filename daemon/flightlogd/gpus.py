"""GPUs: what NVIDIA's driver says of each, under the names of W&B's metrics."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

__all__ = ("Gpu", "Gpus")

_Library = Any  # The module pynvml, which has no types.
_Ask = Callable[[_Library, Any], float]


@dataclass(frozen=True, slots=True)
class Gpu:
    """What is known of a GPU: its metrics, and the processes that use it."""

    metrics: Mapping[str, float]
    users: frozenset[int]


def _clock(name: str) -> _Ask:
    return lambda lib, gpu: lib.nvmlDeviceGetClockInfo(gpu, getattr(lib, name))


def _errors(name: str) -> _Ask:
    return lambda lib, gpu: lib.nvmlDeviceGetMemoryErrorCounter(
        gpu,
        getattr(lib, name),
        lib.NVML_VOLATILE_ECC,
        lib.NVML_MEMORY_LOCATION_DEVICE_MEMORY,
    )


def _allocated(lib: _Library, gpu: Any) -> float:
    memory = lib.nvmlDeviceGetMemoryInfo(gpu)
    return 100.0 * float(memory.used) / float(memory.total)


def _power_percent(lib: _Library, gpu: Any) -> float:
    limit = float(lib.nvmlDeviceGetEnforcedPowerLimit(gpu))
    return 100.0 * float(lib.nvmlDeviceGetPowerUsage(gpu)) / limit


def _users(lib: _Library, gpu: Any) -> Any:
    return lib.nvmlDeviceGetComputeRunningProcesses(gpu)


_METRICS: dict[str, _Ask] = {
    "gpu": lambda lib, gpu: lib.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory": lambda lib, gpu: lib.nvmlDeviceGetUtilizationRates(gpu).memory,
    "memoryAllocated": _allocated,
    "memoryAllocatedBytes": lambda lib, gpu: lib.nvmlDeviceGetMemoryInfo(gpu).used,
    "temp": lambda lib, gpu: lib.nvmlDeviceGetTemperature(
        gpu, lib.NVML_TEMPERATURE_GPU
    ),
    "powerWatts": lambda lib, gpu: lib.nvmlDeviceGetPowerUsage(gpu) / 1000.0,
    "enforcedPowerLimitWatts": lambda lib, gpu: (
        lib.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000.0
    ),
    "powerPercent": _power_percent,
    "smClock": _clock("NVML_CLOCK_SM"),
    "memoryClock": _clock("NVML_CLOCK_MEM"),
    "graphicsClock": _clock("NVML_CLOCK_GRAPHICS"),
    "fanSpeed": lambda lib, gpu: lib.nvmlDeviceGetFanSpeed(gpu),
    "encoderUtilization": lambda lib, gpu: lib.nvmlDeviceGetEncoderUtilization(gpu)[0],
    "correctedMemoryErrors": _errors("NVML_MEMORY_ERROR_TYPE_CORRECTED"),
    "uncorrectedMemoryErrors": _errors("NVML_MEMORY_ERROR_TYPE_UNCORRECTED"),
    "pcieLinkGen": lambda lib, gpu: lib.nvmlDeviceGetCurrPcieLinkGeneration(gpu),
    "pcieLinkSpeed": lambda lib, gpu: lib.nvmlDeviceGetPcieSpeed(gpu),
    "pcieLinkWidth": lambda lib, gpu: lib.nvmlDeviceGetCurrPcieLinkWidth(gpu),
}


class Gpus:
    """The GPUs of this machine; none where there is no driver."""

    def __init__(self, library: _Library = None) -> None:
        """`library` stands in for the module pynvml, which is loaded at first use."""
        self._lib = library
        self._count: int | None = None  # Starting the driver can take seconds.

    def count(self) -> int:
        """Return how many there are; the driver is started when this is first asked.

        Raises:
            NVMLError: The driver fails.
        """
        if self._count is None:
            lib = self._lib = self._lib or import_module("pynvml")
            try:
                lib.nvmlInit()
                self._count = lib.nvmlDeviceGetCount()
            except (lib.NVMLError_LibraryNotFound, lib.NVMLError_DriverNotLoaded):
                self._count = 0  # Not to be asked again.
        return self._count or 0

    def read(self, index: int) -> Gpu:
        """Return what a GPU says now; what it cannot tell is left out.

        Raises:
            NVMLError: It fails.
        """
        gpu = self._lib.nvmlDeviceGetHandleByIndex(index)
        metrics = {name: self._ask(ask, gpu) for name, ask in _METRICS.items()}
        users = self._ask(_users, gpu)
        return Gpu(
            {name: value for name, value in metrics.items() if value is not None},
            frozenset(process.pid for process in users or ()),
        )

    def _ask(self, ask: Callable[[_Library, Any], Any], gpu: Any) -> Any:
        """Return an answer, or None where this GPU or driver has none."""
        lib = self._lib
        try:
            return ask(lib, gpu)
        except (
            lib.NVMLError_NotSupported,
            lib.NVMLError_NoPermission,
            lib.NVMLError_FunctionNotFound,
            AttributeError,  # An older library, under the same name.
        ):
            return None
