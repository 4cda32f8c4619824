"""A process in which proposals are tried, each within limits of processor time, memory and wall time."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import IO, Any, Literal

from nearfar.alignment.discovery.proposals import Proposal
from nearfar.errors import TrainingError, UsageError

Reason = Literal["", "refused", "processor", "memory", "wall", "answer", "died"]

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Limits:
    """What one proposal may use.

    ``processor_seconds``: whole seconds of processor time. ``memory_mib``: of address space beyond what the process
    holds once everything is loaded. ``wall_seconds``: until it is stopped. ``answer_bytes``: of what it says.
    """

    processor_seconds: int = 60
    memory_mib: int = 1024
    wall_seconds: float = 120.0
    answer_bytes: int = 65_536

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < float("inf") or (name != "wall_seconds" and value != int(value)):
                raise UsageError(f"limits: {name} is {value}", hint="a number > 0, and whole but for wall_seconds")


@dataclass(frozen=True)
class Outcome:
    """What came of a proposal: its ``fitness`` (higher is better) and ``measures``, or why it has none.

    ``reason``: "" where it has one; "refused" (an error, a failed check, a fitness that is no finite number),
    "processor", "memory", "wall" (beyond that limit), "answer" (what it said is no answer), "died". ``error``: the same
    in words that a proposer can act on. ``seconds``: of processor time.
    """

    fitness: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    reason: Reason = ""
    error: str = ""
    seconds: float = 0.0


class LimitedProcess:
    """Tries proposals away from this process: ``with LimitedProcess("package.module:make") as tried: tried(proposal)``.

    A process is started that imports ``task``, a function of *yours*, and calls it once with ``arguments`` (JSON). It
    returns ``fitness(objective) -> float`` or a mapping with ``"fitness"`` among finite numbers. For each proposal a
    copy of that process (a fork) builds the objective, checks it
    (:func:`~nearfar.alignment.discovery.validate.check`), calls the fitness, and ends, whatever happens, within the
    limits. Nothing that it does, prints or breaks reaches this process or the next proposal. Random numbers start alike
    for each.

    A copy may write no file, start no process and use no network, and may read only what Python imports; read data in
    ``task``. That stops accidents, not an attacker: who does not trust the author of *code* should run the whole
    search in a container. Expressions and parameters run no foreign code at all. CPU only, on Linux.

    Arguments:
        task: ``"module:function"``, importable here.
        arguments: of the function, as JSON.
        limits: of each proposal; see :class:`Limits`.
        run_code: whether proposals may be code; default False.
        beta: of proposals that name none, default 0.05 (Lu et al., 2024).
        start_seconds: how long import and task may take, default 300.

    Raises UsageError off Linux or for arguments that are no JSON; :class:`~nearfar.errors.TrainingError` when the task
    cannot be made.
    """

    def __init__(
        self,
        task: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        limits: Limits | None = None,
        run_code: bool = False,
        beta: float = 0.05,
        start_seconds: float = 300.0,
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise UsageError("proposals are tried on Linux alone", hint="elsewhere memory cannot be limited")
        if task.count(":") != 1:
            raise UsageError(f"the task is {task!r}", hint="module:function")
        self.limits = limits or Limits()
        self._start_seconds = start_seconds
        self._settings = {
            "task": task,
            "arguments": dict(arguments or {}),
            "limits": asdict(self.limits),
            "run_code": run_code,
            "beta": beta,
        }
        try:
            json.dumps(self._settings, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"the arguments of a task are JSON: {error}") from None
        self._folder = tempfile.TemporaryDirectory(prefix="nearfar-proposals-")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __call__(self, proposal: Proposal) -> Outcome:
        """Try a proposal. Raises :class:`~nearfar.errors.TrainingError` when the process itself cannot go on."""
        process = self._start() if self._process is None or self._process.poll() is not None else self._process
        try:
            said = self._ask(process, proposal.to_json(), self.limits.wall_seconds + 30)
        except (OSError, ValueError, TimeoutError) as error:
            self._end()
            return Outcome(reason="died", error=f"the process that tries proposals ended: {error}")
        return Outcome(**said)

    def close(self) -> None:
        """End the process and what runs in it."""
        self._end()
        self._folder.cleanup()

    def __enter__(self) -> LimitedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        from nearfar.alignment.discovery import worker  # not everywhere there is what it imports

        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= dict.fromkeys(_THREADS, "1")
        # what can be imported here can be imported there, a script's own folder too
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {worker.__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._folder.name,
            env=environment,
            start_new_session=True,
        )
        try:
            said = self._ask(self._process, self._settings, self._start_seconds)
        except (OSError, ValueError, TimeoutError) as error:
            self._end()
            raise TrainingError(
                f"the task of a search did not start: {error}", where=str(self._settings["task"])
            ) from None
        if said.get("error"):
            self._end()
            raise TrainingError(f"the task of a search failed: {said['error']}", where=str(self._settings["task"]))
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(question).encode() + b"\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(_line(process.stdout, time.monotonic() + seconds))
        return answer

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        # it stops what it tries when its questions end; what does not is stopped
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)
        process.wait()


def _line(pipe: IO[bytes], deadline: float) -> bytes:
    """The next line. Raises TimeoutError after the deadline and ValueError when the pipe ends before."""
    found = b""
    while not found.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError("it did not answer in time")
        part = os.read(pipe.fileno(), 65_536)
        if not part:
            raise ValueError("it ended without an answer")
        found += part
    return found
