"""The training loop: one update after another, with evaluations, saves, samples and log lines between."""

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2.checkpoints.files import RELEASED_PREFIX, is_prefix
from gpt2.encoder import Encoder
from gpt2.hparams import HParams
from gpt2.system import progress
from gpt2.system.signals import heeded, signals_of
from gpt2.training import folder as folders
from gpt2.training import lora, tensorboard
from gpt2.training.batches import Batches, Evaluable, HeldOut
from gpt2.training.distribution import ALONE, Team
from gpt2.training.optimizer import learning_rate
from gpt2.training.samples import sample
from gpt2.training.settings import Settings
from gpt2.training.update import Evaluate, TotalLoss, Update, make_evaluate, make_train_step

if TYPE_CHECKING:
    import keras

INTERVAL_WINDOWS = 64  # held-out windows evaluated while training; at the end it is all of them
STOPS = ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1')  # after which a run saves and ends; a system may lack some
BEST, LAST = 'best', 'last'


@dataclasses.dataclass(frozen=True)
class Habits:
    """What a run does beside its updates, none of which changes them.

    every: updates between evaluations, each with a save. log_every: between log lines. sample_every: between samples
    that continue sample_prompt, or None. keep: the checkpoints that stay: `best`, `last`, or the last so many.
    patience: evaluations without a better held-out loss after which the run ends, or None. tensorboard: the folder of
    the run's event files, or None.
    """

    every: int
    log_every: int
    sample_every: int | None = None
    sample_prompt: str | None = None
    keep: str | int = LAST
    patience: int | None = None
    tensorboard: str | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """What is trained, where, on what, and by whom. held_out: what it is evaluated on, or None."""

    folder: str
    hparams: HParams
    encoder: Encoder
    settings: Settings
    habits: Habits
    batches: Batches
    held_out: HeldOut | None
    record: dict[str, Any]
    team: Team = ALONE


@dataclasses.dataclass
class Progress:
    """How far a run is. entries: of training.jsonl. since: the updates that the next of them is about, of which so
    many are timed: the first of a run is not, which is when TensorFlow compiles it. show: writes for TensorBoard."""

    step: int
    entries: list[dict[str, Any]]
    show: tensorboard.Write
    since: list[Update] = dataclasses.field(default_factory=list)
    timed: int = 0
    seconds: float = 0.0
    saved: str | None = None

    @property
    def evaluations(self) -> list[tuple[float, int]]:
        """(held-out loss, step) of each evaluation. What is no number is worse than any."""
        found = [(entry['held_out_loss'], entry['step']) for entry in self.entries if 'held_out_loss' in entry]
        return [(math.inf if math.isnan(loss) else loss, step) for loss, step in found]

    def best(self) -> int | None:
        """The step with the lowest held-out loss."""
        return min(self.evaluations)[1] if self.evaluations else None

    def out_of_patience(self, patience: int | None) -> bool:
        later = [step for _, step in self.evaluations if step > (self.best() or 0)]
        return patience is not None and len(later) >= patience


def train(
    run: Run, params: dict, optimizer: 'keras.optimizers.Optimizer', loss: TotalLoss
) -> tuple[Progress, int | None]:
    """Train until the last update, or the end of patience, or a signal.

    Returns how far the run came, and the number of the signal that ended it, after which it has saved.
    """
    settings = run.settings
    train_step = make_train_step(run.hparams, params, optimizer, settings, loss, run.team)
    evaluate = make_evaluate(run.hparams, params, settings.batch_size, run.team)
    first = int(optimizer.iterations.numpy())
    entries = [entry for entry in folders.read_log(run.folder) if entry['step'] <= first]
    state = Progress(first, entries, tensorboard.writer(run.habits.tensorboard if run.team.chief else None, first))
    if run.team.chief:
        folders.write_log(run.folder, state.entries)
    bar = progress.bar(total=settings.steps, initial=first, desc='training', unit='step', leave=True)
    own, came = run.team.first(params), list[int]()
    with stop_signals() as received, bar:
        while state.step < settings.steps:
            start = time.perf_counter()
            state.since.append(train_step(run.batches.batch(state.step), learning_rate(settings, state.step)))
            if state.step > first:
                state.timed, state.seconds = state.timed + 1, state.seconds + time.perf_counter() - start
            state.step += 1
            bar.update()
            came = run.team.agreed(received, signals_of(STOPS))
            last = state.step == settings.steps
            if due(state.step, run.habits.every, last or came):
                last = look(run, state, evaluate, None if came else run.held_out, last)
                if run.team.chief:
                    checkpoint(run, state, own, optimizer, last)
            elif due(state.step, run.habits.log_every, False):
                log(run, state, None)
            if due(state.step, run.habits.sample_every, last) and not came and run.team.chief:
                text = sample(run.hparams, own, run.encoder, run.habits.sample_prompt)
                progress.note(f'{text}\n')
                state.show(state.step, {'sample': text})
            if last or came:
                break
    return state, came[0] if came else None


def due(step: int, every: int | None, always: Any) -> bool:
    return every is not None and (step % every == 0 or bool(always))


def look(run: Run, state: Progress, evaluate: Evaluate, held_out: HeldOut | None, last: bool) -> bool:
    """Evaluate some of the held-out text, and log; returns whether the run is to end here."""
    log(run, state, evaluate(some(held_out)) if held_out is not None else None)
    return last or state.out_of_patience(run.habits.patience)


def some(held_out: HeldOut) -> Evaluable:
    """Windows from all over the held-out text, as many as are evaluated while training."""
    chosen = held_out.rows(np.linspace(0, held_out.size - 1, min(INTERVAL_WINDOWS, held_out.size)).astype(int))
    return chosen if chosen.weights.any() else held_out


def log(run: Run, state: Progress, held_out_loss: float | None) -> None:
    """Write an entry on the updates since the last one to training.jsonl, and say it."""
    settings = run.settings
    speed = state.timed * settings.rows * settings.window / state.seconds if state.timed else None
    entry = {
        'step': state.step,
        'loss': float(np.mean([update.loss for update in state.since])),
        'learning_rate': learning_rate(settings, state.step - 1),
        'gradient_norm': float(np.mean([update.norm for update in state.since])),
    }
    if speed is not None:
        entry['tokens_per_second'] = round(speed, 1)
    if held_out_loss is not None:
        entry['held_out_loss'] = held_out_loss
    if run.team.chief:
        folders.append_log(run.folder, entry)
    state.entries.append(entry)
    state.show(state.step, {name: value for name, value in entry.items() if name != 'step'})
    left = (settings.steps - state.step) * state.seconds / state.timed if state.timed else None
    progress.note(line(entry, settings.steps, left))
    state.since, state.timed, state.seconds = [], 0, 0.0


def line(entry: dict[str, Any], steps: int, left: float | None) -> str:
    """An entry in words. left: seconds to the end of the run, where they are known."""
    held_out = f', held-out {entry["held_out_loss"]:.4f}' if 'held_out_loss' in entry else ''
    speed = f', {entry["tokens_per_second"]:,.0f} tokens/s' if left is not None else ''
    left_over = f', {duration(left)} left' if left else ''
    return (
        f'step {entry["step"]:,} of {steps:,}: loss {entry["loss"]:.4f}{held_out}, rate {entry["learning_rate"]:.3g}'
        f'{speed}{left_over}'
    )


def duration(seconds: float) -> str:
    """A time in words: two figures at most."""
    if seconds < 90:
        return f'{max(1, round(seconds))} s'
    minutes = seconds / 60
    if minutes < 90:
        return f'{round(minutes)} min'
    hours = minutes / 60
    return f'{hours:.1f} h' if hours < 48 else f'{math.ceil(hours / 24)} days'


def checkpoint(
    run: Run, state: Progress, params: dict, optimizer: 'keras.optimizers.Optimizer', last: bool
) -> None:
    """Save, and keep of the earlier checkpoints those that the run is to keep."""
    if state.saved is None:
        folders.write_record(run.folder, run.record)
    best = best_there(run, state)
    if last and run.habits.keep == BEST and best not in (None, state.step):
        name = f'model-{best}'
        folders.make_current(run.folder, name)
        folders.remove_others(run.folder, {name})
        state.saved = os.path.join(run.folder, name)
    else:
        name = RELEASED_PREFIX if last else f'model-{state.step}'
        state.saved = folders.save(run.folder, run.hparams, run.encoder, params, optimizer, name, kept(run, state))
    write_adapter(run, state.saved)


def best_there(run: Run, state: Progress) -> int | None:
    """The step with the lowest held-out loss, this one or of those whose checkpoint is there: a run that goes on may
    have kept none of the earlier ones."""
    found = [each for each in state.evaluations if each[1] == state.step
             or is_prefix(os.path.join(run.folder, f'model-{each[1]}'))]  # fmt: skip
    return min(found)[1] if found else None


def write_adapter(run: Run, prefix: str) -> None:
    """Where adapters are trained, write those of a checkpoint into the folder, for other programs."""
    settings = run.settings
    if rank := settings.lora_rank:
        lora.write_adapter(run.folder, prefix, run.hparams, rank, settings.lora_alpha, run.record['init_from'])


def kept(run: Run, state: Progress) -> list[str]:
    """Names of the earlier checkpoints to keep."""
    if run.habits.keep == LAST:
        return []
    if run.habits.keep == BEST:
        best = best_there(run, state)
        return [] if best in (None, state.step) else [f'model-{best}']
    steps = sorted({entry['step'] for entry in state.entries if entry['step'] % run.habits.every == 0} - {state.step})
    return [f'model-{step}' for step in steps[-(int(run.habits.keep) - 1) :]] if int(run.habits.keep) > 1 else []


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Context in which the first signal to stop only comes into the list it gives; the second takes its usual effect.
    One that is ignored stays so. Only the main thread can ask for signals."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def remember(number: int, _: Any) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for each, previous in before.items():
            signal.signal(each, previous)

    before = {number: signal.signal(number, remember) for number in heeded(STOPS)}
    try:
        yield came
    finally:
        restore()
