"""Where the steps of the pipeline run: in this process, in several of this computer, on Slurm, or on Ray."""

import contextlib
import copy
import io
import multiprocessing.connection
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import multiprocess
from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.utils.logging import logger

from gpt2.errors import Error
from gpt2.preparation.text import end_with_parent
from gpt2.system import progress

LOCAL, SLURM, RAY = EXECUTORS = ('local', 'slurm', 'ray')
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # where gpt2 is imported from


class Step(NamedTuple):
    """blocks: of datatrove, or of ours. counted: whether what its filters leave out counts, rather than is left out
    again by a later step."""

    name: str
    blocks: list[Any]
    tasks: int
    counted: bool = False


class Engine(NamedTuple):
    """kind: one of EXECUTORS. workers: tasks that run at once; -1 is all, but not on LOCAL. partition, time: of Slurm's
    jobs."""

    kind: str = LOCAL
    workers: int = 1
    partition: str | None = None
    time: str | None = None


class StepError(Error):
    """Tasks of a step that failed."""


class Local(LocalPipelineExecutor):
    """datatrove's, whose pool of processes waits forever for one that was killed. Here each task has a process, or all
    have this one, and a task that fails stops no other."""

    def run(self) -> dict[int, str]:
        """Run the tasks that are left; returns {task: what went wrong}."""
        ranks = self.get_incomplete_ranks()
        if not ranks:
            return {}
        self.save_executor_as_json()
        with progress.bar(total=len(ranks), desc=os.path.basename(self.logging_dir.path), unit='task', delay=1) as bar:
            runs = self.one_by_one(ranks) if self.workers == 1 else self.side_by_side(ranks)
            failed = {}
            for rank, problem in runs:
                bar.update()
                if problem:
                    failed[rank] = problem
        return failed

    def one_by_one(self, ranks: Sequence[int]) -> Iterator[tuple[int, str]]:
        for rank in ranks:
            try:
                run_silently(copy.deepcopy(self), rank)  # its blocks keep counts
                yield rank, ''
            except Exception as error:
                yield rank, described(error)

    def side_by_side(self, ranks: Sequence[int]) -> Iterator[tuple[int, str]]:
        context = multiprocess.get_context('forkserver')
        os.environ['PYTHONPATH'] = path_for_others()  # all that a fork server knows of where modules are
        context.set_forkserver_preload(['gpt2.preparation.stages'])
        left, running = list(reversed(ranks)), {}
        try:
            while left or running:
                while left and len(running) < self.workers:
                    rank = left.pop()
                    mine, theirs = context.Pipe(duplex=False)
                    process = context.Process(target=work, args=(self, rank, theirs))
                    process.start()
                    theirs.close()
                    running[process.sentinel] = process, rank, mine
                for sentinel in multiprocessing.connection.wait(list(running)):
                    process, rank, answer = running.pop(sentinel)
                    process.join()
                    yield rank, '' if process.exitcode == 0 else outcome(process.exitcode, answer)
        finally:
            for process, *_ in running.values():
                process.terminate()
                process.join()


def work(executor: Local, rank: int, answer: Any) -> None:
    """A task, as a process of its own."""
    end_with_parent(multiprocess.parent_process())
    try:
        run_silently(executor, rank)
    except Exception as error:
        answer.send(described(error))
        sys.exit(1)


def run_silently(executor: Local, rank: int) -> None:
    """Run a task. What datatrove says meanwhile goes into its log file alone."""
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            executor._run_for_rank(rank, local_rank=1)
        finally:
            logger.remove()


def described(error: Exception) -> str:
    if isinstance(error, Error):
        return str(error)
    reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    return f'{reason} ({error.filename})' if isinstance(error, OSError) and error.filename else reason


def outcome(status: int, answer: Any) -> str:
    with contextlib.suppress(EOFError, OSError):
        if answer.poll():
            return answer.recv()
    return f'its process was ended by signal {-status}' if status < 0 else f'its process ended with status {status}'


def run_local(step: Step, logs: str, engine: Engine) -> None:
    """Raises StepError."""
    failed = Local(step.blocks, step.tasks, engine.workers, logs).run()
    if failed:
        rank, problem = next(iter(failed.items()))
        raise StepError(
            f'{len(failed)} of {step.tasks} tasks of {os.path.basename(logs)} failed, task {rank} since {problem}; the '
            f'others are done, and the same command does what is left; {os.path.join(logs, "logs")} says more'
        )


def run_on_ray(step: Step, logs: str, engine: Engine) -> None:
    """Raises StepError."""
    import ray

    if not ray.is_initialized():
        environment = {'env_vars': {'PYTHONPATH': path_for_others()}}
        ray.init(log_to_driver=False, logging_level='ERROR', include_dashboard=False, runtime_env=environment)
    executor = RayPipelineExecutor(step.blocks, step.tasks, engine.workers, logging_dir=logs, mem_per_cpu_gb=0.5)
    logger.remove()
    executor.run()
    if failed := executor.get_incomplete_ranks():
        raise StepError(
            f'{len(failed)} of {step.tasks} tasks of {os.path.basename(logs)} failed on Ray; the same command does '
            f'what is left; {os.path.join(logs, "logs")} says more'
        )


def path_for_others() -> str:
    return os.pathsep.join(filter(None, [SOURCE, os.environ.get('PYTHONPATH')]))


def submit(steps: Sequence[tuple[Step, str]], engine: Engine) -> None:
    """Give steps, each with the folder of its logs, to Slurm, each to begin when the one before is done."""
    before = None
    bin_folder = os.path.dirname(sys.executable)
    for step, logs in steps:
        before = SlurmPipelineExecutor(
            step.blocks, step.tasks, engine.time, engine.partition, workers=engine.workers, logging_dir=logs,
            job_name=f'{stage_of(logs)}-{step.name}', depends=before, qos=None,
            env_command=f'export PYTHONPATH="{path_for_others()}"\nexport PATH="{bin_folder}:$PATH"',
        )  # fmt: skip
    logger.remove()
    if before:
        try:
            before.run()
        except (OSError, subprocess.CalledProcessError) as error:
            raise StepError(f'sbatch took no job ({error}); is {engine.partition} a partition of this Slurm?') from None


def stage_of(logs: str) -> str:
    """The stage in whose folder the logs of a step are, in <stage>/steps/<step>."""
    return os.path.basename(os.path.dirname(os.path.dirname(logs)))
