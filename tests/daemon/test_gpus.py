"""What is read of GPUs, of a stand-in for NVIDIA's library: none of these is real."""

import pytest
from tests.daemon.nvml import Nvml

from flightlogd.gpus import Gpus


def test_a_gpu_is_read_under_the_names_of_wandb() -> None:
    gpus = Gpus(Nvml({0: [11, 12]}))

    assert gpus.count() == 2
    assert gpus.read(0).users == {11, 12}
    assert gpus.read(1).users == set()
    assert gpus.read(0).metrics == {
        "gpu": 97,
        "memory": 40,
        "memoryAllocated": 25.0,
        "memoryAllocatedBytes": 20 << 30,
        "temp": 60,
        "powerWatts": 350.0,
        "enforcedPowerLimitWatts": 700.0,
        "powerPercent": 50.0,
        "smClock": 1001,
        "memoryClock": 1002,
        "graphicsClock": 1000,
        "encoderUtilization": 3,
        "pcieLinkGen": 5,
        "pcieLinkWidth": 16,
    }


def test_what_one_gpu_cannot_tell_is_left_out_of_its_metrics_alone() -> None:
    gpus = Gpus(Nvml())
    gpus.count()

    first, second = (gpus.read(index).metrics for index in range(2))

    assert first.keys() - second.keys() == {"gpu", "memory"}
    assert second["temp"] == 61


@pytest.mark.parametrize(
    "problem", [Nvml.NVMLError_LibraryNotFound(), Nvml.NVMLError_DriverNotLoaded()]
)
def test_without_a_driver_there_are_no_gpus_and_it_is_asked_once(
    problem: Exception,
) -> None:
    nvml = Nvml()
    nvml.problem = problem
    gpus = Gpus(nvml)

    assert [gpus.count(), gpus.count()] == [0, 0]
    assert nvml.starts == 1


def test_a_driver_that_fails_to_start_is_started_again() -> None:
    nvml = Nvml()
    nvml.problem = Nvml.NVMLError("busy")
    gpus = Gpus(nvml)
    for _ in range(2):
        with pytest.raises(Nvml.NVMLError, match="busy"):
            gpus.count()
    nvml.problem = None

    assert (gpus.count(), gpus.count()) == (2, 2)
    assert nvml.starts == 3


def test_the_real_library_can_be_asked_on_any_machine() -> None:
    gpus = Gpus()

    assert all(gpus.read(index).metrics for index in range(gpus.count()))
