"""What a run depends on, from the flags that were given, what the run had before, and what fits its text."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from gpt2.checkpoints.folders import BUNDLED_MODEL
from gpt2.errors import UsageError

SHAPE = {'n_ctx': 512, 'n_embd': 256, 'n_head': 8, 'n_layer': 6}
FROM_SCRATCH = {'vocabulary': BUNDLED_MODEL, **SHAPE}
# Of distillation; the weights of its losses are those that DistilBERT's authors show with their code.
LOSSES = {'temperature': 2.0, 'alpha_ce': 5.0, 'alpha_clm': 2.0, 'alpha_cos': 1.0}
DEFAULTS = {
    'init_from': None, **FROM_SCRATCH, 'batch_size': 4, 'accumulate': 1, 'optimizer': 'adamw', 'freeze': None,
    'dropout': 0.0, 'precision': 'float32', 'recompute': False, 'jit_compile': None, 'held_out': 0.05, 'seed': 0,
    'pack': False, 'text_field': None, 'train_on_prompt': False, 'lora_rank': 0, 'lora_alpha': 32.0,
    'teacher': None, **LOSSES,
}  # fmt: skip
DONE = 'done'  # in a record: the updates after which the run had ended
MAY_CHANGE = {'steps', 'epochs'}  # of a run that goes on
# Of each optimizer: the peak of its rate from scratch and from a model, and the weight decay.
RATES = {'adamw': (1.5e-3, 5e-5), 'adafactor': (1e-2, 5e-4), 'lion': (3e-4, 1e-5), 'sgd': (0.3, 0.03)}
WEIGHT_DECAY = {'adamw': 0.1, 'adafactor': 0.0, 'lion': 1.0, 'sgd': 0.0}
OF_ADAPTERS = 4  # times the rate from a model: of AdamW 0.0002 as, with an alpha of 32, in Hu et al. 2021, table 11
OF_STUDENTS = 10  # likewise: of AdamW 0.0005, as in the code of Sanh et al. 2019
EMBEDDINGS = 'embeddings'
PRECISIONS = ('float32', 'bfloat16', 'float16')
LONGEST_FROM_SCRATCH, EPOCHS_FROM_SCRATCH = 7000, 20
SHORTEST_FROM_MODEL, EPOCHS_FROM_MODEL = 30, 3


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the losses of a run depend on, beside its text and initial weights.

    steps: updates in all. batch_size: windows computed at once. window: tokens a window. learning_rate: the peak.
    warmup: updates until the peak. held_out: fraction of the tokens. pack: whether documents are packed.
    accumulate: times batch_size windows an update. freeze: what is not trained, as frozen() takes it. dropout: the
    probability that a feature is dropped. precision: of the products of matrices. recompute: whether layers are
    computed again in the backward pass. jit_compile: whether XLA compiles updates; None before that is chosen.
    lora_rank: of the adapters that are trained in place of the weights, or 0. lora_alpha: see lora.py. temperature,
    alpha_ce, alpha_clm, alpha_cos: see distillation.py.
    """

    steps: int
    batch_size: int
    window: int
    learning_rate: float
    warmup: int
    weight_decay: float
    held_out: float
    seed: int
    pack: bool = False
    optimizer: str = 'adamw'
    accumulate: int = 1
    freeze: str | None = None
    dropout: float = 0.0
    precision: str = 'float32'
    recompute: bool = False
    jit_compile: bool | None = None
    lora_rank: int = 0
    lora_alpha: float = 32.0
    temperature: float = 2.0
    alpha_ce: float = 5.0
    alpha_clm: float = 2.0
    alpha_cos: float = 1.0

    @property
    def rows(self) -> int:
        """Windows an update."""
        return self.batch_size * self.accumulate


def check_kinds(record: Mapping[str, Any]) -> None:
    """Raise ValueError where a record has what is no value of a setting."""
    kinds: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Settings)}
    kinds |= dict.fromkeys(SHAPE, int) | dict.fromkeys(('init_from', 'vocabulary', 'text_field', 'teacher'), str | None)
    kinds |= dict.fromkeys(('suffix', 'held_out_data'), list) | {'train_on_prompt': bool, DONE: int}
    for name, kind in kinds.items():
        if name in record and not isinstance(record[name], int | float if kind is float else kind):
            raise ValueError(f'its {name} is {record[name]!r}')


def merged(folder: str, given: Mapping[str, Any], record: Mapping[str, Any] | None) -> dict[str, Any]:
    """All flags that matter: those given, else as the run in folder had them, else the defaults.

    record: of the run that goes on, or None. Raises UsageError for flags that contradict it or each other.
    """
    for names in (('steps', 'epochs'), ('held_out', 'held_out_data')):
        if set(names) <= set(given):
            raise UsageError(f'--{names[0]} and --{names[1]} say two things; give one of them')
    if record is None:
        check_origin(given)
        layers = {'n_layer': None} if 'teacher' in given else {}  # which then depends on the teacher
        return DEFAULTS | layers | dict(given)
    before = DEFAULTS | dict(record)
    for name, value in given.items():
        if name not in MAY_CHANGE and name in before and before[name] != value:
            raise changed(folder, name, before[name], value)
    return before | dict(given)


def check_origin(given: Mapping[str, Any]) -> None:
    """Raise UsageError for a shape or a vocabulary beside a model that has its own, or adapters without a model."""
    giver = next((name for name in ('init_from', 'teacher') if name in given), None)
    meant = [f'--{name}' for name in FROM_SCRATCH if name in given and (giver, name) != ('teacher', 'n_layer')]
    if giver and meant:
        raise UsageError(
            f'--{giver} {given[giver]} has a shape and a vocabulary of its own; leave out {", ".join(meant)}'
        )
    of_losses = [(name, 'teacher') for name in LOSSES]
    for name, other in (('lora_rank', 'init_from'), ('lora_alpha', 'lora_rank'), *of_losses):
        if name in given and other not in given:
            raise UsageError(f'--{name} needs --{other}; --help says what for')


def changed(folder: str, name: str, before: Any, now: Any) -> UsageError:
    return UsageError(
        f'{folder} was trained with {name} {before}, now it is {now}; give the same again, or another --model_name'
    )


def run_settings(flags: Mapping[str, Any], n_ctx: int, windows: int) -> Settings:
    """The settings of a run on a text that has so many windows an epoch."""
    scratch = flags['init_from'] is None and flags['teacher'] is None
    steps = updates(flags, windows / (flags['batch_size'] * flags['accumulate']), scratch)
    values: dict[str, Any] = {
        'learning_rate': peak_rate(flags, scratch), 'warmup': min(200, steps // 10), 'window': n_ctx,
        'weight_decay': WEIGHT_DECAY[flags['optimizer']],
    }  # fmt: skip
    values |= dict(flags) | {'steps': steps}
    if values['warmup'] > steps:
        remedy = 'give a smaller one, or more --steps'
        raise UsageError(f'--warmup is {values["warmup"]}, the run has {steps} updates; {remedy}')
    return Settings(**{field.name: values[field.name] for field in dataclasses.fields(Settings)})


def peak_rate(flags: Mapping[str, Any], scratch: bool) -> float:
    """The learning rate where none is given."""
    from_scratch, from_model = RATES[flags['optimizer']]
    if scratch:
        return from_scratch
    if flags['lora_rank']:
        return OF_ADAPTERS * from_model
    return OF_STUDENTS * from_model if flags['init_from'] is None else from_model


def updates(flags: Mapping[str, Any], an_epoch: float, scratch: bool) -> int:
    """Updates in all. an_epoch: updates in one."""
    if flags.get('epochs') is not None:
        return max(1, round(flags['epochs'] * an_epoch))
    if flags.get('steps') is not None:
        return flags['steps']
    if scratch:
        return max(1, min(LONGEST_FROM_SCRATCH, math.ceil(EPOCHS_FROM_SCRATCH * an_epoch)))
    return max(SHORTEST_FROM_MODEL, math.ceil(EPOCHS_FROM_MODEL * an_epoch))


def check_window(window: int | None, n_ctx: int) -> None:
    if window is not None and window > n_ctx:
        raise UsageError(f'--window is {window}, the model allows at most n_ctx {n_ctx}')


def frozen(freeze: str | None) -> tuple[bool, int]:
    """What `embeddings`, a number of blocks, or both with a comma between, say: (whether the embeddings are frozen,
    how many of the first blocks are). Raises ValueError."""
    parts = freeze.split(',') if freeze else []
    blocks = [int(part) for part in parts if part != EMBEDDINGS]
    if len(blocks) > 1 or len(parts) - len(blocks) > 1 or min(blocks, default=1) < 1:
        raise ValueError
    return EMBEDDINGS in parts, sum(blocks)


def frozen_names(freeze: str | None) -> tuple[str, ...]:
    """What the names of the variables begin with that are not trained."""
    embeddings, blocks = frozen(freeze)
    return (*(f'model/h{layer}/' for layer in range(blocks)), *(['model/wte', 'model/wpe'] if embeddings else []))


def check_freeze(freeze: str | None, n_layer: int) -> None:
    """Raise UsageError for more blocks than there are."""
    _, blocks = frozen(freeze)
    if blocks > n_layer:
        raise UsageError(f'--freeze is {freeze}, the model has {n_layer} blocks')
