"""Which engine runs a model here, and loading it. TensorFlow is imported only where it is the engine, NumPy only where
a model is loaded."""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING, Any

from gpt2 import checks
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams, weights_bytes
from gpt2.system import progress
from gpt2.system.files import WriteError
from gpt2.system.signals import interrupts_held_back

if TYPE_CHECKING:
    from gpt2.checkpoints.source import Source
    from gpt2.engine import Batch, Engine

ENGINES = ('auto', 'tf', 'litert')
PRECISIONS = ('float32', 'int8', 'int4')
MEGABYTE = 10**6
# Where Linux shows an NVIDIA card, also inside a container, and in Windows' subsystem: TensorFlow knows no other.
GPU_PATHS = ('/dev/nvidia[0-9]*', '/proc/driver/nvidia/gpus/*', '/usr/lib/wsl/lib/libcuda.so*')
MEMORY_FILES = (  # (the limit of the control group this process is in, what it uses)
    ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory.current'),
    ('/sys/fs/cgroup/memory/memory.limit_in_bytes', '/sys/fs/cgroup/memory/memory.usage_in_bytes'),
)


class LiteRTError(Error):
    """LiteRT cannot run here."""


def check_engine(engine: Any, precision: Any, prefix: str = '') -> tuple[str, str]:
    """(engine, precision), if they go together. prefix: of their names in a message. Raises UsageError."""
    engine = checks.choice(f'{prefix}engine', engine, ENGINES)
    precision = checks.choice(f'{prefix}precision', precision, PRECISIONS)
    if engine == 'tf' and precision != 'float32':
        raise UsageError(
            f'{prefix}precision {precision} needs {prefix}engine litert; {prefix}engine tf computes in float32'
        )
    return engine, precision


def load_engine(source: Source, engine: str, precision: str, draft: Source | None = None) -> Engine:
    """The engine of a model; 'auto' is TensorFlow where it would use a graphics card, LiteRT elsewhere, and
    where there is a draft, a model that guesses.

    Where LiteRT cannot be had, or has no room, 'auto' is TensorFlow too, and says so. Raises Error.
    """
    if draft is not None:
        return load_litert(source, precision, draft)
    if engine == 'tf' or (engine == 'auto' and precision == 'float32' and gpu_at_hand()):
        return load_tensorflow(source)
    if engine == 'litert' or precision != 'float32':
        return load_litert(source, precision)
    try:
        check_memory(source.hparams)
        return load_litert(source, precision)
    except (LiteRTError, WriteError) as error:
        progress.note(f'{error}; using TensorFlow (--engine tf), which is slower')
        return load_tensorflow(source)


def load_tensorflow(source: Source) -> Engine:
    with progress.doing('loading TensorFlow'):
        from gpt2 import sample
        from gpt2.checkpoints.source import load_params
        from gpt2.system import tensorflow

    if os.getpid() != tensorflow.PROCESS:
        raise Error('TensorFlow was loaded before this process was forked; load the model after the fork only')
    return sample.Generator(source.hparams, load_params(source))


def load_litert(source: Source, precision: str, draft: Source | None = None) -> Engine:
    """draft: what guesses tokens, always in int8: exact or not, it changes no sample."""
    try:
        with interrupts_held_back():  # as they come, importing may fail or swallow them
            from gpt2.litert import drafting, engine, export
    except ImportError as error:
        raise LiteRTError(f'--engine litert needs a package ({error}); pip install ai-edge-litert') from None
    path = export.exported_file(source, precision)
    if draft is None:
        with progress.doing('loading weights'):
            return engine.Generator(path, source.hparams)
    guessing = export.exported_file(draft, 'int8')
    with progress.doing('loading weights'):
        return drafting.DraftedGenerator(path, source.hparams, engine.Generator(guessing, draft.hparams))


def open_batch(engine: Any, remembered_bytes: int = 0) -> Batch:
    """A running batch on an engine that load_engine() returned. remembered_bytes: of keys and values of prompts, at
    most, that are kept for later ones, where the engine can."""
    engine.check_usable()
    if engine.package == 'tensorflow':
        from gpt2 import batching

        return batching.Batch(engine)
    from gpt2.litert import batching as running

    return running.Batch(engine, remembered_bytes)


def gpu_at_hand() -> bool:
    """Whether TensorFlow would find a graphics card: judged by the files of its driver, without importing it."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    # CUDA sees the cards that are listed before the first that is none, such as -1.
    hidden = visible is not None and not re.match(r'\s*(\d|GPU-|MIG-)', visible)
    return not hidden and any(glob.glob(path) for path in GPU_PATHS)


def check_memory(hparams: HParams) -> None:
    """Raise LiteRTError where LiteRT, which while loading holds the weights twice, would not have the memory."""
    needed, free = 2 * weights_bytes(hparams), free_memory()
    if free is not None and needed > free:
        needed, free = needed // MEGABYTE, free // MEGABYTE
        raise LiteRTError(f'LiteRT needs {needed} MB of memory to load this model, {free} are free')


def free_memory() -> int | None:
    """Bytes that this process may still take, or None where the system does not say."""
    found = re.search(r'^MemAvailable:\s*(\d+) kB', read('/proc/meminfo'), re.MULTILINE)
    free = [int(found.group(1)) * 1024] if found else []
    for limit, used in MEMORY_FILES:
        if (most := read(limit).strip()).isdigit() and (now := read(used).strip()).isdigit():
            free.append(int(most) - int(now))
    return min(free, default=None)


def read(path: str) -> str:
    try:
        with open(path, encoding='ascii') as file:
            return file.read()
    except OSError:
        return ''
