"""One run on many devices: `tf.distribute` over the cards of this computer, or over the workers that TF_CONFIG names.

A replica is a device with a copy of all weights. Each takes its rows of every batch, and the sums over all replicas
are what one replica would have had of the whole batch. A worker is a process; the first is the chief, which alone
writes and speaks. Imports TensorFlow where there is more than one replica.
"""

import contextlib
import dataclasses
import faulthandler
import functools
import glob
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpt2.errors import Error, UsageError
from gpt2.system import progress
from gpt2.system.signals import heeded
from gpt2.training.arrival import arrive, parts
from gpt2.training.batches import Batch, joined

if TYPE_CHECKING:
    import keras

CONFIG = 'TF_CONFIG'
KINDS = ('chief', 'worker')  # of a cluster's tasks; where there is no chief, the first worker is it
HEARTBEAT = 30  # seconds without a word after which a worker counts as dead
CONNECTING = 300  # seconds that TensorFlow may take to connect workers that have all come
STALL = 3600  # seconds that an update, with what is done after it, may take; seen by the workers that wait
# Flags with the values that no several devices go with: Keras' scaling of losses, and XLA, do not share so.
ALONE_ONLY = {'precision': 'float16', 'jit_compile': True}
LEAVING = 30  # seconds that a process may take to end after a failure
LOST = 'another worker has ended or cannot be reached'
LOSSES = {'UnavailableError', 'AbortedError', 'CancelledError', 'DeadlineExceededError'}  # TensorFlow's
CUT_OFF = ('SIGINT', 'SIGTERM')  # which end a process that waits for others


class WorkerError(Error):
    """Another worker has ended, or cannot be reached."""


class Cluster(NamedTuple):
    """tasks: the addresses of each kind, the chief's first. number: which of all workers this process is."""

    tasks: dict[str, list[str]]
    number: int

    @property
    def addresses(self) -> list[str]:
        return [address for group in self.tasks.values() for address in group]


def cluster(config: str | None) -> Cluster | None:
    """The workers that a TF_CONFIG names; None for no more than one. Raises UsageError."""
    if not config:
        return None
    try:
        found = json.loads(config)
        tasks = {kind: list(found['cluster'][kind]) for kind in KINDS if found['cluster'].get(kind)}
        others = sorted(set(found['cluster']) - set(KINDS))
        kind, number = found['task']['type'], int(found['task']['index'])
        places = [(each, number) for each, group in tasks.items() for number in range(len(group))]
        if not others:
            result = Cluster(tasks, places.index((kind, number)))
            for address in result.addresses:
                parts(address)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f'{CONFIG} is {config}, expected JSON as '
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    if others:
        raise UsageError(f'{CONFIG} names a task of the kind {others[0]}, expected {" and ".join(KINDS)} alone')
    return result if len(result.addresses) > 1 else None


@dataclasses.dataclass(frozen=True)
class Team:
    """All that compute one run. strategy: of tf.distribute, or None for a single replica. workers: processes. index:
    which of them this one is."""

    strategy: Any = None
    workers: int = 1
    index: int = 0

    @property
    def chief(self) -> bool:
        return self.index == 0

    @property
    def replicas(self) -> int:
        return 1 if self.strategy is None else int(self.strategy.num_replicas_in_sync)

    def scope(self) -> contextlib.AbstractContextManager:
        """Context in which variables are made: each replica then has its own copy of them."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()

    def each(self, function: Callable) -> Callable:
        """A function that computes the given one in every replica and returns what one of them returns."""
        if self.strategy is None:
            return function

        def run(*arguments: Any) -> Any:
            return self.first(self.strategy.run(function, args=arguments))

        return run

    def first(self, values: Any) -> Any:
        """A structure of what replicas have, each in its own copy, with this process's first copy in its place."""
        if self.strategy is None:
            return values
        from gpt2.system.tensorflow import tf

        return tf.nest.map_structure(lambda value: self.strategy.experimental_local_results(value)[0], values)

    # In the function of a replica:

    def share(self, parts: Sequence[Any]) -> list[Any]:
        """This replica's rows of a batch's tensors."""
        if self.strategy is None:
            return list(parts)
        from gpt2.system.tensorflow import tf

        rows = parts[0].shape[0] // self.replicas
        first = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32) * rows
        return [tf.slice(part, [first, 0], [rows, part.shape[1]]) for part in parts]

    def seed(self, seed: Any) -> Any:
        """A seed of this replica's own."""
        if self.strategy is None:
            return seed
        from gpt2.system.tensorflow import tf

        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.random.experimental.stateless_fold_in(seed, number)

    def sum(self, values: Any) -> Any:
        """A structure of tensors, each summed over all replicas."""
        if self.strategy is None:
            return values
        from gpt2.system.tensorflow import tf

        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    # Between updates:

    def agreed(self, came: Sequence[int], numbers: Sequence[int]) -> list[int]:
        """The signals that have come to any worker, the same for all of them. came: to this one. numbers: of all that
        may have come."""
        if self.workers == 1:
            return list(came)
        found = self.total(np.array([number in came for number in numbers], np.float32)).numpy()
        self.watchdog.wake()
        return [number for number, count in zip(numbers, found) if count]

    @functools.cached_property
    def total(self) -> Callable:
        from gpt2.system.tensorflow import tf, traced

        # What comes from outside is on no device yet, and sums are made on the devices of what is summed.
        return traced(self.each(lambda value: self.sum(tf.identity(value))))

    @functools.cached_property
    def watchdog(self) -> 'Watchdog':
        return Watchdog(STALL)

    def meet(self) -> None:
        """Wait until all workers have come here."""
        self.agreed([], [0])

    def part(self) -> None:
        """The end of a run: no other worker is done before the chief is."""
        self.meet()
        self.watchdog.sleep()

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Context that the chief leaves before the others enter it."""
        with contextlib.nullcontext() if self.chief else ended_at_once():
            if not self.chief:
                self.meet()
        yield
        if self.chief:
            self.watchdog.wake()  # nothing keeps the others
            self.meet()


class Watchdog:
    """Breaks off what waits for other workers once it was not woken for so many seconds: one of them lives, else it
    would have been missed, and does not go on. It sleeps until it is woken for the first time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.timer: threading.Timer | None = None

    def wake(self) -> None:
        self.sleep()
        self.timer = threading.Timer(self.seconds, break_off)
        self.timer.daemon = True
        self.timer.start()

    def sleep(self) -> None:
        if self.timer:
            self.timer.cancel()


def break_off() -> None:
    """End every wait of this process for others with an error."""
    from gpt2.system.tensorflow import tf

    from tensorflow.python.eager.context import context  # isort: skip

    context().abort_collective_ops(tf.errors.UNAVAILABLE, LOST)


ALONE = Team()


def assembled() -> Team:
    """The replicas that this process is to compute with. Raises Error."""
    named = cluster(os.environ.get(CONFIG))
    if named is None and card_files() < 2:
        return ALONE  # without TensorFlow, of which encoding has no need
    if card_files() > 1:
        os.environ.setdefault('TF_NUM_INTEROP_THREADS', '0')  # as many as it likes, to keep several cards busy
    if named is None:
        from gpt2.system.tensorflow import tf

        devices = cards()
        return Team(tf.distribute.MirroredStrategy(devices)) if len(devices) > 1 else ALONE
    arrive(named.addresses, named.number)
    with ended_at_once():
        return Team(connected(named), len(named.addresses), named.number)


def card_files() -> int:
    """Cards that the system shows."""
    return len(glob.glob('/dev/nvidia[0-9]*'))


def cards() -> list[str]:
    """The graphics cards that TensorFlow computes with, by its names."""
    from gpt2.system.tensorflow import tf

    return [f'GPU:{number}' for number, _ in enumerate(tf.config.list_physical_devices('GPU'))]


def connected(named: Cluster) -> Any:
    """The strategy of a cluster, once all of its workers are there. Raises WorkerError."""
    from gpt2.system.tensorflow import tf

    from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob  # isort: skip
    from tensorflow.python.eager.context import context  # isort: skip

    workers = len(named.addresses)
    progress.note(f'all {workers} are there; should they not be connected in {CONNECTING} s, this ends with status 1')
    # As the strategy itself does it, but for the times.
    context().configure_coordination_service(
        'standalone', f'/job:{next(iter(named.tasks))}/replica:0/task:0',
        cluster_register_timeout_in_ms=1000 * CONNECTING, heartbeat_timeout_in_ms=1000 * HEARTBEAT,
        coordinated_jobs=[CoordinatedJob(name=kind, num_tasks=len(group)) for kind, group in named.tasks.items()],
    )  # fmt: skip
    end_anyway(CONNECTING)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise WorkerError(
            f'the {workers} workers of {CONFIG} have not found one another ({reason(error)}); start all of them, '
            'each with the same addresses, which no other program listens at'
        ) from None
    finally:
        faulthandler.cancel_dump_traceback_later()


def reason(error: Exception) -> str:
    """The beginning of what a TensorFlow error says."""
    return (getattr(error, 'message', None) or str(error)).splitlines()[0][:200].strip()


@contextlib.contextmanager
def losses_named(team: Team) -> Iterator[None]:
    """Context in which the loss of another worker becomes a WorkerError."""
    try:
        yield
    except Exception as error:
        if team.workers == 1 or not is_loss(error):
            raise
        raise WorkerError(f'{LOST}; the same command on all of them goes on from the last checkpoint') from None


def is_loss(error: Exception) -> bool:
    """Whether an exception says that another worker is not there. TensorFlow's are known by name, so as not to
    import it."""
    return type(error).__name__ in LOSSES or 'ollective ops is aborted' in str(error)


def check_shareable(flags: Mapping[str, Any], replicas: int) -> None:
    """Raise UsageError for a run that so many devices cannot share."""
    batch_size = flags['batch_size']
    for name, value in ALONE_ONLY.items():
        if replicas > 1 and flags.get(name) == value:
            raise UsageError(f'--{name} is {value}, which needs a single device, and there are {replicas}')
    if batch_size % replicas:
        raise UsageError(
            f'--batch_size is {batch_size}, which {replicas} devices cannot share evenly; give a multiple of {replicas}'
        )


def divisible(batch: Batch, rows: int) -> Batch:
    """A batch with rows of no weight behind it, so that their number is a multiple of rows."""
    missing = -len(batch.tokens) % rows
    if not missing:
        return batch
    filling = batch.rows([0] * missing)
    return joined([batch, filling._replace(weights=0 * filling.weights)])


def summed_once(optimizer: 'keras.optimizers.Optimizer') -> None:
    """Let an optimizer take gradients as they are. In a replica Keras would sum them over all, behind the clipping;
    here they are summed already, before it."""
    optimizer._all_reduce_sum_gradients = lambda pairs: pairs


@contextlib.contextmanager
def ended_at_once() -> Iterator[None]:
    """Context in which a signal to end takes effect at once: Python's own handling would wait as long as TensorFlow
    waits for other workers. Nothing is half done then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in heeded(CUT_OFF)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_anyway(seconds: float = LEAVING) -> None:
    """Have this process end after so many seconds at the latest, with status 1 and without a word: TensorFlow may wait
    forever for workers that are not there, also as the interpreter ends, and keep Python from all else meanwhile."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=open(os.devnull, 'w'))
