"""What NVML alone knows: UUIDs and indices of MIG devices, the architecture and brand of a GPU.

    facts = Nvml(30).facts(host, "550.54.15")
    facts.gpus[0].migs[1].uuid            "MIG-..."

NVML is a library of the driver that can take seconds, hang with a broken GPU, and crash.  So it
is loaded by a child process alone, which has a deadline, the driver's own library by its full
path, no variable of the caller, and nothing open but the pipe that it answers by.  Nobody pays
for it but who names a device that procfs cannot tell, or demands an architecture or a brand.

Source: NVML API reference; nvidia-ml-py, which calls it.
"""

from __future__ import annotations

from ocirt import jsonio, log
from ocirt import system as os
from ocirt.errors import ConfigError, Error
from ocirt_hpc import optional
from ocirt_hpc.host import pci_address
from ocirt_hpc.nvidia import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_hpc.host import Host
    from ocirt_hpc.nvidia.driver import Places

LARGEST = 1 << 20  # bytes of an answer
SIGKILL = 9

EXTRA = "nvidia-ml-py is not installed"
NONSENSE = "the answer of NVML makes no sense"


class MigDevice:
    """A MIG device as NVML has it: its index on the GPU, its UUID, its instances."""

    def __init__(self, index: int, uuid: str, gi: int, ci: int) -> None:
        self.index = index
        self.uuid = uuid
        self.gi = gi
        self.ci = ci


class Device:
    """A GPU as NVML has it; `fault` says what kept it from telling more than its index.

    arch: compute capability, such as 8.0.  brand: as NVIDIA_REQUIRE_* writes it.
    """

    def __init__(self, row: dict[str, Any]) -> None:
        self.fault: str = row.get("fault", "")
        self.uuid: str = row.get("uuid", "")
        self.address = pci_address(row.get("address", ""))
        self.arch: str = row.get("arch", "")
        self.brand: str = row.get("brand", "")
        self.migs = [MigDevice(**one) for one in row.get("migs", ())]


class Facts:
    """NVML's answer: the version of the driver, and the GPUs in the order of their indices."""

    def __init__(self, document: Any) -> None:
        self.driver: str = document["driver"]
        self.gpus = [Device(row) for row in document["gpus"]]

    def gpu(self, address: str) -> Device:
        """Return the GPU at a PCI address; ConfigError when NVML cannot tell about it."""
        for one in self.gpus:
            if one.address == address and not one.fault:
                return one
        faults = "".join(f" ({one.fault})" for one in self.gpus if one.fault)
        raise ConfigError(f"NVML does not know the GPU at {address}{faults}")


class Nvml:
    """One question to NVML, asked once however often its answer is needed.

    seconds: how long it may take (without nvidia-persistenced each GPU takes some to wake up);
    0: it is not to be asked.
    """

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._facts: Facts | None = None
        self._fault: Error | None = None

    def facts(self, host: Host, version: str, places: Places) -> Facts:
        """Return NVML's answer; ConfigError names the library, and what is wrong.

        version: of the loaded driver, "" when nothing else can tell it.
        """
        if self._facts is None and self._fault is None:
            try:
                self._facts = self._ask(host, version, places)
            except Error as error:
                self._fault = error
        if self._facts is None:
            assert self._fault is not None
            raise ConfigError(*self._fault.segments)
        return self._facts

    def _ask(self, host: Host, version: str, places: Places) -> Facts:
        if self.seconds <= 0:
            raise ConfigError("nvidia.nvml-timeout in hpc.toml forbids to ask NVML")
        library = files.nvml(host, version, places)
        log.debug(f"NVML is asked: {library}")
        try:
            return _facts(ask(host.root + library, self.seconds))
        except Error as error:
            raise ConfigError(library, *error.segments) from None


def _facts(answer: bytes) -> Facts:
    try:
        document = jsonio.parse(answer)
        fault = document.get("fault")
        if fault is None:
            return Facts(document)
    except (Error, AttributeError, KeyError, TypeError, ValueError):
        raise ConfigError(NONSENSE) from None
    raise ConfigError(str(fault))


def ask(library: str, seconds: float) -> bytes:
    """Return what a child that has loaded the library writes; ConfigError when it does not."""
    import select
    import time

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _answer(library, writer, seconds)
        finally:
            os._exit(1)
    os.close(writer)
    ready = select.poll()
    ready.register(reader, select.POLLIN)
    answer, late = bytearray(), False
    deadline = time.monotonic() + seconds
    try:
        while len(answer) <= LARGEST:
            left = deadline - time.monotonic()
            late = left <= 0 or not ready.poll(left * 1000)
            piece = b"" if late else os.read(reader, 1 << 16)
            if not piece:
                break
            answer += piece
    finally:
        os.close(reader)
        status = _end(pid, at_once=late or len(answer) > LARGEST)
    if late:
        raise ConfigError(f"NVML did not answer within {seconds:g} s")
    if len(answer) > LARGEST:
        raise ConfigError(NONSENSE)
    if status is None or not os.WIFEXITED(status):
        how = f" (signal {os.WTERMSIG(status)})" if status is not None else ""
        raise ConfigError(f"NVML crashed{how}")
    if not answer:
        raise ConfigError("NVML ended without an answer")
    return bytes(answer)


def _end(pid: int, *, at_once: bool) -> int | None:
    """Wait for the child, end it and what it started; None for one that does not end."""
    import time

    for attempt in range(200):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if at_once or attempt == 100:
            at_once = False
            for kill in (os.killpg, os.kill):  # it may have no group of its own yet
                try:
                    kill(pid, SIGKILL)
                except ProcessLookupError:
                    pass
        time.sleep(0.01)
    # Asleep in the driver where no signal reaches it: whoever inherits it has to wait.
    return None


# --- the child


def _answer(library: str, writer: int, seconds: float) -> None:
    """Ask NVML, write the answer to the pipe and end; whatever goes wrong stays in here."""
    import resource
    import signal

    # What a foreground `run` catches is not for the child, which has to end of its own faults.
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.alarm(int(seconds) + 1)  # if nobody is left to end us
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, writer)
    os.closerange(writer + 1, 1 << 20)
    os.chdir("/")
    os.environ.clear()
    try:
        document = _look(library)
    except BaseException as error:  # there is nobody to pass it on to
        document = {"fault": f"NVML answers: {error or error.__class__.__name__}"}
    data = jsonio.dumps(document).encode()
    while data:
        data = data[os.write(writer, data) :]
    os._exit(0)


def _look(library: str) -> dict[str, Any]:
    """Return what NVML tells, as JSON has it."""
    try:
        nvml = optional.load("pynvml")
    except ImportError:
        return {"fault": EXTRA}
    import ctypes

    ctypes.CDLL(None).clearenv()  # os.environ does not know what libraries have set
    try:
        # What nvidia-ml-py loads by its soname is this one then, wherever the loader looks.
        ctypes.CDLL(library)
    except OSError as error:
        return {"fault": str(error).removeprefix(f"{library}: ")}
    nvml.nvmlInit()
    brands: dict[int, str] = {}
    for name, number in vars(nvml).items():
        if name.startswith("NVML_BRAND_"):
            brands.setdefault(number, name.removeprefix("NVML_BRAND_").replace("_", "").lower())
    rows = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            rows.append(_look_at(nvml, nvml.nvmlDeviceGetHandleByIndex(index), brands))
        except nvml.NVMLError as error:
            rows.append({"fault": f"GPU {index}: {error}"})
    return {"driver": nvml.nvmlSystemGetDriverVersion(), "gpus": rows}


def _look_at(nvml: Any, gpu: Any, brands: dict[int, str]) -> dict[str, Any]:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(gpu)
    bus = nvml.nvmlDeviceGetPciInfo(gpu).busId
    row = {
        "uuid": nvml.nvmlDeviceGetUUID(gpu),
        "address": bus.decode() if isinstance(bus, bytes) else bus,
        "arch": f"{major}.{minor}",
        "brand": brands.get(nvml.nvmlDeviceGetBrand(gpu), ""),
        "migs": [],
    }
    try:
        most = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except nvml.NVMLError:
        most = 0  # a GPU or a driver that knows nothing of MIG
    for index in range(most):
        try:
            mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
        except nvml.NVMLError:
            continue  # nothing is there
        row["migs"].append(
            {
                "index": index,
                "uuid": nvml.nvmlDeviceGetUUID(mig),
                "gi": nvml.nvmlDeviceGetGpuInstanceId(mig),
                "ci": nvml.nvmlDeviceGetComputeInstanceId(mig),
            }
        )
    return row
