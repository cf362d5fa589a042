"""A stand-in for the module pynvml: two GPUs of which not everything can be told."""

from types import SimpleNamespace
from typing import Any

__all__ = ("Nvml",)


class NVMLError(Exception):
    """The root of the library's errors."""


class NVMLErrorNotSupported(NVMLError):
    """This GPU cannot tell."""


class NVMLErrorNoPermission(NVMLError):
    """This user may not know."""


class NVMLErrorFunctionNotFound(NVMLError):
    """The driver is older than the library."""


class NVMLErrorLibraryNotFound(NVMLError):
    """There is no driver."""


class NVMLErrorDriverNotLoaded(NVMLError):
    """There is a driver that does not run."""


class Nvml:
    """What `Gpus` uses of the module; `problem` is what its start raises."""

    NVMLError = NVMLError
    NVMLError_NotSupported = NVMLErrorNotSupported
    NVMLError_NoPermission = NVMLErrorNoPermission
    NVMLError_FunctionNotFound = NVMLErrorFunctionNotFound
    NVMLError_LibraryNotFound = NVMLErrorLibraryNotFound
    NVMLError_DriverNotLoaded = NVMLErrorDriverNotLoaded
    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2
    NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 0, 1
    NVML_VOLATILE_ECC = 0
    NVML_MEMORY_LOCATION_DEVICE_MEMORY = 2

    def __init__(self, users: dict[int, list[int]] | None = None) -> None:
        self.users = users or {}
        self.lost: set[int] = set()
        self.starts = 0
        self.problem: Exception | None = None

    def nvmlInit(self) -> None:
        self.starts += 1
        if self.problem is not None:
            raise self.problem

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.lost:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        if gpu == 1:
            raise NVMLErrorNotSupported
        return SimpleNamespace(gpu=97, memory=40)

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(used=20 << 30, total=80 << 30)

    def nvmlDeviceGetTemperature(self, gpu: int, sensor: int) -> int:
        return 60 + gpu

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        return 350_000

    def nvmlDeviceGetEnforcedPowerLimit(self, gpu: int) -> int:
        return 700_000

    def nvmlDeviceGetClockInfo(self, gpu: int, clock: int) -> int:
        return 1000 + clock

    def nvmlDeviceGetFanSpeed(self, gpu: int) -> int:
        raise NVMLErrorNotSupported

    def nvmlDeviceGetEncoderUtilization(self, gpu: int) -> list[int]:
        return [3, 167_000]

    def nvmlDeviceGetMemoryErrorCounter(
        self, gpu: int, error: int, counter: int, location: int
    ) -> int:
        raise NVMLErrorNoPermission

    def nvmlDeviceGetCurrPcieLinkGeneration(self, gpu: int) -> int:
        return 5

    def nvmlDeviceGetCurrPcieLinkWidth(self, gpu: int) -> int:
        return 16

    # nvmlDeviceGetPcieSpeed is missing, as in old versions.

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: int) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in self.users.get(gpu, ())]
