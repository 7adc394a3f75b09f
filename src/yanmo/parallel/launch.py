"""One command, several processes: torch's own launcher (torchrun) with one rank in each, on this machine.

If one rank dies, the others are stopped within seconds, the error names the first cause, and the run can be
resumed. A signal reaches every rank; all finish their step and save.
"""

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from yanmo.core.errors import YanmoError
from yanmo.core.workers import LAUNCHER, SHUTDOWN_SECONDS


class RankError(YanmoError):
    """A rank died; ``exit_code`` is its own."""


def launch(processes: int, arguments: list[str]) -> None:
    """Run Python with ``arguments`` in each of ``processes`` processes and wait for them.

    Raises:
        RankError: the first rank that failed was killed, or broke.
        SystemExit: a rank met an error that it has printed, or a signal came.
    """
    logging.disable(logging.CRITICAL)  # instead of the launcher's pages, one line below
    # ranks share the cores: each with a thread per core would be slower than one process alone
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    os.environ[LAUNCHER] = str(os.getpid())  # a rank ends itself when this process is gone
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # a broken connection is reported below, in one line
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, run_id=f"yanmo-{os.getpid()}",
        # port 0: a free one, so that two runs on one machine do not collide. No restarts: a rank that failed
        # comes back only by a resume, which restores all ranks to the same step
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", max_restarts=0,
        shutdown_timeout=SHUTDOWN_SECONDS, signals_to_handle="SIGTERM,SIGINT",
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except ChildFailedError as error:
        rank, failure = first_cause(error.failures)
        if failure.exitcode > 1:  # a YanmoError, which the rank has printed
            raise SystemExit(failure.exitcode) from error
        raise describe_failure(rank, failure) from error
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from error


def first_cause(failures: dict[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """The rank that was killed, else the first that failed."""
    # the launcher itself ends the others by SIGTERM, and a rank whose peer is gone fails because of that: so
    # an exit by any other signal is the cause, then the earliest error
    own = {rank: failure for rank, failure in failures.items() if failure.exitcode != -signal.SIGTERM}
    killed = {rank: failure for rank, failure in own.items() if failure.exitcode < 0}
    return min((killed or own or failures).items(), key=lambda item: item[1].timestamp)


def describe_failure(rank: int, failure: ProcessFailure) -> RankError:
    """The error about the first rank that died; its traceback, if any, was printed before."""
    killed = failure.exitcode < 0
    how = f"was killed by {failure.signal_name()}" if killed else f"ended with exit code {failure.exitcode}"
    error = RankError(
        f"rank {rank} {how}; the other ranks were stopped",
        where=f"process {failure.pid}",
        hint="the run is intact; the same command resumes it",
    )
    error.exit_code = 128 - failure.exitcode if killed else failure.exitcode
    return error
