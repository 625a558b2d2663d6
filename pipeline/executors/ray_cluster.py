"""Ray: starting or joining it, its actors, their calls and deaths.

Ray itself is used here alone. Ray never restarts an actor or retries a call: which video is to blame for a death is
decided in `suspects.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.errors import AvelError
from pipeline.executors.job import Job
from pipeline.unit import Stopped

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("catalog", "pipeline")

GIB = 2**30
# What an actor and its decoding child are expected to take at most; less where the node has less to give.
WORKER_MEMORY_BYTES = 2 * GIB
# Results of fused workers are features only. Split ones put windows of up to 32 MB there: 2 made ahead by the decoder
# and 2 on their way to the encoder, for each decode actor.
OBJECT_STORE_BYTES = 256 * 2**20
SPLIT_OBJECT_STORE_BYTES = 192 * 2**20

START_S = 15.0
LOCAL_STARTS = 3
# So often it is said that workers cannot be started, after `START_S` for the first time.
SAY_AGAIN_S = 60.0
# A cluster's port that does not take a connection in this time is nobody's; Ray itself would wait for minutes.
REACH_S = 10.0
# A Unix socket's path has at most 107 bytes, of which Ray's own names take some 70.
_LONGEST_TMPDIR = 36
_TOKEN_FILE = Path("~/.ray/auth_token")
_log = logging.getLogger("avel")

# Ray has no types: an actor's handle, and what stands for the value of a call or for a generator.
Actor = Any
Reference = Any

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """How to use Ray.

    Attributes:
        address: of a running cluster; None starts a local one that ends with this process. A Ray that this process
            has started or joined already is used as it is.
        encode_workers: 0 fuses decoding and encoding in one actor; N gives encoders N actors of their own.
        num_gpus: of each encode actor (each fused actor where there are none); 0 on a CPU.
        verbose: show what Ray and the workers print.
    """

    address: str | None = None
    encode_workers: int = 0
    num_gpus: float = 0.0
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.encode_workers < 0 or self.num_gpus < 0:
            raise ValueError(f"encode_workers and num_gpus must be 0 or more, got {self}")


class RayCluster:
    """Ray, started or joined: hires actors, waits for their calls, and distinguishes a death from an error.

    Args:
        ray: the package.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        exceptions = ray.exceptions
        # What Ray raises where a process has died or what it held is gone.
        self.deaths: tuple[type[BaseException], ...] = (
            exceptions.RayActorError,
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )

    def hire(self, kind: type, job: Job, workers: int, *, num_gpus: float = 0.0) -> Actor:
        """A new actor of class `kind`, one of `workers`."""
        total_bytes = self._ray.cluster_resources().get("memory", WORKER_MEMORY_BYTES)
        # Ray counts this memory, it does not enforce it: with too much asked for the actor would wait for ever.
        share_bytes = int(min(WORKER_MEMORY_BYTES, 0.8 * total_bytes / (workers + 1)))
        actor = self._ray.remote(kind).options(
            num_cpus=1, num_gpus=num_gpus, memory=share_bytes, max_restarts=0, max_task_retries=0
        )
        return actor.remote(job)

    def capacity(self) -> str:
        """What the cluster has and what of it is free, for people."""
        total, free = self._ray.cluster_resources(), self._ray.available_resources()
        parts = [
            f"{total.get('CPU', 0):g} CPUs ({free.get('CPU', 0):g} free)",
            f"{total.get('memory', 0) / GIB:.1f} GiB ({free.get('memory', 0) / GIB:.1f} free)",
        ]
        if total.get("GPU"):
            parts.append(f"{total['GPU']:g} GPUs ({free.get('GPU', 0):g} free)")
        return ", ".join(parts)

    def await_start(self, references: list[Reference]) -> None:
        """Gives new actors a moment, so that start-up is not counted as slow work; a busy cluster may need longer."""
        self._ray.wait(references, num_returns=len(references), timeout=START_S, fetch_local=False)

    def end(self, actor: Actor) -> None:
        """Ends an actor, whatever it does."""
        # An actor that is dead already cannot be killed again, and that is all that is wanted.
        with contextlib.suppress(*self.deaths):
            self._ray.kill(actor, no_restart=True)

    def alive(self, actor: Actor) -> bool:
        """Whether an actor's process answers; waits for the calls that the actor has in hand."""
        try:
            self.get(actor.ping.remote())
        except self.deaths:
            return False
        return True

    def get(self, reference: Reference) -> Any:
        """The value of a call that has ended; raises what the call raised, or one of `deaths`."""
        return self._ray.get(reference)

    def ready(self, handles: list[Reference], timeout_s: float) -> list[Reference]:
        """Those of the calls and generators that have a value or an error, after at most `timeout_s`."""
        if not handles:
            return []
        first, rest = self._ray.wait(handles, num_returns=1, timeout=timeout_s, fetch_local=False)
        if first and rest:
            more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)
            first += more
        return list(first)


class StartWatch:
    """Says on the log when workers cannot be started: silence is what a full or empty cluster answers with.

    Args:
        cluster: asked for what it has.
        workers: how many were hired.
        clock: seconds.
    """

    def __init__(self, cluster: RayCluster, workers: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._workers, self._clock = cluster, workers, clock
        self._since_s = self._say_at_s = 0.0
        self._waiting = False

    def look(self, starting: int) -> None:
        """To be called again and again; `starting` workers are not up."""
        now_s = self._clock()
        if not starting:
            self._waiting = False
            return
        if not self._waiting:
            self._waiting, self._since_s, self._say_at_s = True, now_s, now_s + START_S
        if now_s >= self._say_at_s:
            self._say_at_s = now_s + SAY_AGAIN_S
            _log.warning(
                "%d of %d Ray workers have not started for %.0f s: each asks for 1 CPU; the cluster has %s. Waiting "
                "for room or more nodes; fewer --workers need less",
                *(starting, self._workers, now_s - self._since_s, self._cluster.capacity()),
            )


def refuse_broken_start(error: BaseException) -> None:
    """A worker that cannot even be made (a package is missing on its node) will not be made by trying again."""
    if "creation task" in str(error):
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise AvelError(f"Ray could not make a worker: {lines[-1]}") from error


def _ray() -> Any:
    """Ray, imported only where it is used: the command line's other verbs must not wait for it."""
    try:
        import ray
    except ImportError as error:
        raise AvelError(f"the Ray executor needs Ray ({error}); install it, or use --executor local") from error
    return ray


@contextlib.contextmanager
def connected(settings: RaySettings, workers: int) -> Iterator[RayCluster]:
    """Ray, started or joined; what this process had of it before is left as it was."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if len(os.environ.get("TMPDIR", "")) > _LONGEST_TMPDIR:
        os.environ.setdefault("RAY_TMPDIR", "/tmp")
    has_token = False
    if settings.address is not None:
        has_token = _use_token()
        if not (settings.verbose or has_token):  # a cluster that wants one is told in one line, not in twenty
            os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "error")
    ray = _ray()
    cluster = RayCluster(ray)
    if ray.is_initialized():
        yield cluster
        return
    # Ray sets its own SIGTERM handler, which would exit without a commit.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _init(ray, _init_options(settings, workers))
        interrupted = False
    except ConnectionError as error:
        why = (
            "refuses the token that is in $RAY_AUTH_TOKEN or ~/.ray/auth_token"
            if has_token
            else "wants a token, to be put into $RAY_AUTH_TOKEN or ~/.ray/auth_token"
        )
        raise AvelError(
            f"the Ray cluster at {settings.address} does not let this process in: it {why}, or it is another version "
            f"of Ray: {error}"
        ) from error
    except SystemExit:
        interrupted = True  # a SIGTERM that came while Ray's handler was in place
    try:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if interrupted:
            signal.raise_signal(signal.SIGTERM)
            raise Stopped
        yield cluster
    finally:
        ray.shutdown()


def _use_token() -> bool:
    """Has Ray use a token that is at hand, unless the environment says which way; whether it uses one."""
    mode = os.environ.get("RAY_AUTH_MODE")
    at_hand = bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    if mode is None and (at_hand or _TOKEN_FILE.expanduser().is_file()):
        os.environ["RAY_AUTH_MODE"] = mode = "token"
    return mode == "token"


def reach(address: str) -> None:
    """AvelError where nobody listens at HOST:PORT; other forms ("auto") are Ray's own to find."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise AvelError(
            f"no Ray cluster answers at {address}: {error}; `ray start --head` prints the address of the one it starts"
        ) from error


def _init(ray: Any, options: dict[str, Any]) -> None:
    for attempt in range(1, LOCAL_STARTS + 1):
        try:
            ray.init(**options)
        except Exception as error:
            # Ray gives its own node 30 s, whatever one sets; on a busy machine that is too little.
            if attempt == LOCAL_STARTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
        else:
            return


def _init_options(settings: RaySettings, workers: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "log_to_driver": settings.verbose,
        "logging_level": "INFO" if settings.verbose else "ERROR",
    }
    if settings.address is not None:
        # The nodes have the dependencies; the project itself travels, so that they run this very code.
        packages = [str(PROJECT / name) for name in PACKAGES]
        return options | {"address": settings.address, "runtime_env": {"py_modules": packages}}
    split = settings.encode_workers > 0
    return options | {
        "address": "local",
        "num_cpus": workers + settings.encode_workers,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES + (SPLIT_OBJECT_STORE_BYTES * workers if split else 0),
    }
