"""A run from its flags to its end: what it trains on, what it starts from, what it says."""

import contextlib
import dataclasses
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpt2.checkpoints.source import Source, load_params
from gpt2.encoder import Encoder, read_encoder
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams, load_hparams
from gpt2.system import progress
from gpt2.system.signals import ends_raised
from gpt2.training import folder as folders
from gpt2.training import plan
from gpt2.training.batches import (
    Batches,
    HeldOut,
    Packed,
    Stream,
    Text,
    Weight,
    Windows,
    check_enough,
    check_weights,
    split,
    weighted,
)
from gpt2.training.data import DatasetError, Reading, find_files
from gpt2.training.distillation import check_teacher, make_loss
from gpt2.training.distribution import Team, assembled, check_shareable, losses_named
from gpt2.training.loop import BEST, Habits, Progress, Run, train, write_adapter
from gpt2.training.report import draw_curves, held_out_report
from gpt2.training.samples import prompt_ids
from gpt2.training.settings import (
    DEFAULTS,
    DONE,
    SHAPE,
    Settings,
    changed,
    check_freeze,
    check_window,
    merged,
    run_settings,
)
from gpt2.training.tokens import Tokens, encoded_before, existing_token_file, processes, token_file
from gpt2.training.update import TotalLoss, faster_compiled, make_evaluate, total_loss

WORTH_A_TRIAL = 300  # seconds that a run must take for a trial of XLA


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Files that are one text, and its weight in every batch."""

    paths: list[str]
    weight: Weight


@dataclasses.dataclass(frozen=True)
class Texts:
    """tokens: of each corpus. kept: what of each is trained on. held_out: what is evaluated on."""

    tokens: list[Tokens]
    kept: list[Text]
    held_out: list[Text]


class Start(NamedTuple):
    """record: of the run that goes on, or None. flags: all that matter. held_paths: of the texts that are held out.
    source, hparams and encoder: as origin() has them. teacher: a model, or None. n_ctx: the longest window."""

    record: dict[str, Any] | None
    flags: dict[str, Any]
    corpora: list[Corpus]
    held_paths: list[str]
    source: Source | None
    teacher: Source | None
    hparams: HParams
    encoder: Encoder
    n_ctx: int


def train_in(
    folder: str, patterns: Sequence[str], given: Mapping[str, Any], habits: Mapping[str, Any], models_dir: str
) -> int | None:
    """Train in a folder, from the beginning or on; returns the number of the signal that ended it, if one did.

    patterns: files, folders or globs, perhaps with weights. given: the flags that the run depends on, of
    settings.DEFAULTS and Settings and epochs, suffix, held_out_data, those that were given. habits: fields of Habits,
    likewise. Raises Error; then a new folder is not made.
    """
    with ends_raised(('SIGUSR1',)):  # until the loop, which saves first, it would end the process at once
        return train_prepared(folder, prepared(folder, patterns, given, habits, models_dir), habits)


def train_prepared(folder: str, start: Start, habits: Mapping[str, Any]) -> int | None:
    ask_for_onednn()
    team = assembled()
    check_shareable(start.flags, team.replicas)
    with losses_named(team), progress.shown_if(team.chief):
        with folders.held(folder) if team.chief else contextlib.nullcontext():
            tidied = folders.tokens_tidied(folder) if team.chief else contextlib.nullcontext(set[str]())
            with team.chief_first(), tidied as used:
                if team.chief and folders.run_in(folder) != start.record:
                    raise Error(f'another run has trained in {folder} meanwhile; the same command goes on from there')
                run, texts = planned(folder, start, habits, team)
                used |= {tokens.path for tokens in [*texts.tokens, *(text.tokens for text in texts.held_out)]}
            stopped = carry_out(run, start.source, start.teacher, texts, start.record)
        team.part()
    return stopped


def ask_for_onednn() -> None:
    """Have TensorFlow, unless it is loaded already, compute with oneDNN on every processor; by default it does only on
    those with instructions for networks. Batches of text are a fifth faster by it, single tokens slower."""
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')


def prepared(
    folder: str, patterns: Sequence[str], given: Mapping[str, Any], habits: Mapping[str, Any], models_dir: str
) -> Start:
    """What is known of a run before its text is read; as train_in. Raises Error for all that is wrong by then."""
    record = folders.run_in(folder)
    flags = merged(folder, given, record)
    corpora = find_corpora(patterns, flags.get('suffix') or ())
    held_paths = find_files(flags.get('held_out_data') or ())
    check_apart(corpora, held_paths)
    teacher = folders.opened(flags['teacher'], '--teacher', models_dir)
    source, hparams, encoder = origin(folder, flags, record, models_dir, teacher)
    flags |= {name: getattr(hparams, name) for name in SHAPE}
    n_ctx = hparams.n_ctx
    if teacher:
        check_teacher(teacher, hparams, encoder, flags)
        n_ctx = min(n_ctx, teacher.hparams.n_ctx)
    check_window(flags.get('window'), n_ctx)
    check_freeze(flags['freeze'], hparams.n_layer)
    prompt_ids(encoder, habits.get('sample_prompt'), hparams.n_ctx)
    return Start(record, flags, corpora, held_paths, source, teacher, hparams, encoder, n_ctx)


def planned(folder: str, start: Start, habits: Mapping[str, Any], team: Team) -> tuple[Run, Texts]:
    """The run, and the texts that it trains on."""
    flags, n_ctx = start.flags, start.n_ctx
    texts = encoded(folder, start.corpora, start.held_paths, flags, start.encoder, team)
    windows = cut(texts.kept, flags, n_ctx)
    settings = run_settings(flags, n_ctx, sum(each.count for each in windows))
    batches = Batches(windows, [corpus.weight for corpus in start.corpora], settings)
    looks = Habits(**fitting(settings, habits.get('every')) | dict(habits))
    held_out = HeldOut(texts.held_out, settings.window, settings.pack, start.hparams.n_vocab)
    if not held_out.targets.any():
        check_unheld(looks, start.held_paths)
    run = Run(
        folder, start.hparams, start.encoder, settings, looks, batches, held_out if held_out.targets.any() else None,
        new_record(folder, start, settings, texts), team,
    )  # fmt: skip
    return run, texts


def find_corpora(patterns: Sequence[str], suffixes: Sequence[str]) -> list[Corpus]:
    """All files as one corpus or, where a pattern has a weight, those of each pattern as one. Raises Error."""
    parts = [weighted(pattern) for pattern in patterns]
    if not any(weight for _, weight in parts):
        return [Corpus(find_files(patterns, suffixes), Weight())]
    check_weights([weight or Weight() for _, weight in parts])
    return [Corpus(find_files([pattern], suffixes), weight or Weight()) for pattern, weight in parts]


def check_apart(corpora: Sequence[Corpus], held_paths: Sequence[str]) -> None:
    """Raise UsageError for a file that is part of two texts of a mixture, or both trained on and held out."""
    found: set[str] = set()
    texts = [(corpus.paths, 'given with two weights') for corpus in corpora]
    for paths, what in [*texts, (held_paths, 'both trained on and --held_out_data')]:
        places = {os.path.realpath(path): path for path in paths}
        for place in found & set(places):
            raise UsageError(f'{places[place]} is {what}; leave it out of one of them')
        found |= set(places)


def origin(
    folder: str, flags: Mapping[str, Any], record: Mapping[str, Any] | None, models_dir: str, teacher: Source | None
) -> tuple[Source | None, HParams, Encoder]:
    """(the model whose weights a new run starts from, or any that trains adapters, shape, vocabulary)."""
    if record is None:
        return folders.starting_model(flags['init_from'], flags['vocabulary'], dict(flags), models_dir, teacher)
    base = folders.opened(flags['init_from'], '--init_from', models_dir) if flags['lora_rank'] else None
    with folders.own_files(folders.AS_IT_WAS):
        return base, load_hparams(os.path.join(folder, 'hparams.json')), read_encoder(folder)


def encoded(
    folder: str, corpora: Sequence[Corpus], held_paths: Sequence[str], flags: Mapping[str, Any], encoder: Encoder,
    team: Team,
) -> Texts:  # fmt: skip
    """The texts of a run, from token files in its folder, which the chief makes."""
    reading = Reading(flags['text_field'], flags['train_on_prompt'])

    def tokens_of(paths: Sequence[str]) -> Tokens:
        if (found := encoded_before(paths, encoder)) is None:
            if team.chief:
                found = token_file(paths, reading, encoder, folder, processes())
            else:
                found = existing_token_file(paths, reading, encoder, folder)
        check_targets(found, paths)
        return found

    tokens = [tokens_of(corpus.paths) for corpus in corpora]
    pairs = [split(each, 0 if held_paths else flags['held_out'], flags['seed']) for each in tokens]
    held_out = [split(tokens_of(held_paths), 0, 0)[0]] if held_paths else [held for _, held in pairs]
    return Texts(tokens, [kept for kept, _ in pairs], held_out)


def check_targets(tokens: Tokens, paths: Sequence[str]) -> None:
    """Raise DatasetError for texts of which nothing is trained on."""
    if tokens.trained is not None and not tokens.trained.any():
        raise DatasetError(
            f'{paths[0]} has no completion, and no word of an assistant, that could be trained on; '
            'give others, or --train_on_prompt'
        )


def cut(texts: Sequence[Text], flags: Mapping[str, Any], n_ctx: int) -> list[Windows]:
    """Windows of the training texts. Raises DatasetError for too little text."""
    window = flags.get('window') or n_ctx
    windows: list[Windows] = [(Packed if flags['pack'] else Stream)(text, window, flags['seed']) for text in texts]
    check_enough(windows, texts, flags['batch_size'] * flags['accumulate'], window)
    return windows


def check_unheld(habits: Habits, held_paths: Sequence[str]) -> None:
    """Raise Error where nothing is held out and something needs it."""
    if held_paths:
        raise DatasetError(f'{held_paths[0]} holds no text to evaluate on; give another --held_out_data')
    for flag, needs in (('--patience', habits.patience is not None), (f'--keep {BEST}', habits.keep == BEST)):
        if needs:
            raise UsageError(f'{flag} needs held-out text, and there is none; give --held_out or --held_out_data')


def fitting(settings: Settings, every: int | None) -> dict[str, int]:
    """How often a run of so many updates is looked at, unless the user says so, who may have given every."""
    every = every or min(250, max(1, settings.steps // 10))
    return {'every': every, 'log_every': max(1, every // 5)}


def new_record(folder: str, start: Start, settings: Settings, texts: Texts) -> dict[str, Any]:
    """What the run depends on. Raises UsageError if one that goes on had another text or its adapters another model."""
    flags, names = start.flags, [*DEFAULTS, 'suffix', 'held_out_data']
    contents: dict[str, Any] = {
        'tokens': sum(len(tokens.ids) for tokens in texts.tokens),
        'tokens_crc32': [tokens.digest for tokens in texts.tokens],
        'weights': [[corpus.weight.first, corpus.weight.last] for corpus in start.corpora],
    }
    if start.held_paths:
        contents['held_out_crc32'] = texts.held_out[0].tokens.digest
    if settings.lora_rank and start.source:
        contents['init_from_sha256'] = start.source.digest()
    if start.teacher:
        contents['teacher_sha256'] = start.teacher.digest()
    before = start.record or {}
    for name, value in contents.items():
        if before.get(name, value) != value:
            raise changed(folder, name, before[name], value)
    return {name: flags[name] for name in names if name in flags} | dataclasses.asdict(settings) | contents


def carry_out(
    run: Run, source: Source | None, teacher: Source | None, texts: Texts, before: Mapping[str, Any] | None
) -> int | None:
    """Train, and say what is planned and what has come of it. before: the record of a run that goes on."""
    with progress.doing('loading TensorFlow'):
        from gpt2.system.tensorflow import tf  # noqa: F401

    prefix = folders.current_prefix(run.folder) if before is not None else None
    params, optimizer = folders.starting_point(prefix, source, run.hparams, run.settings, run.team)
    first, steps = int(optimizer.iterations.numpy()), run.settings.steps
    if prefix and run.team.chief:  # a run that was killed may have left those of the checkpoint before
        write_adapter(run, prefix)
    if prefix and before is not None and (way_on := way_past_end(run, before, first)):
        progress.note(f'{run.folder} is trained: {max(first, before.get(DONE, 0)):,} updates; {way_on}')
        conclude(run, params, texts, first, None)
        return None
    with run.team.scope():
        loss = make_loss(teacher.hparams, load_params(teacher), run.settings) if teacher else total_loss
    taught_by = teacher.hparams if teacher else None
    run = with_way_chosen(run, params, optimizer, loss, taught_by)
    beginning = prefix or (source.path if source else 'fresh weights')
    of_teacher = f', taught by {teacher.path}' if teacher else ''
    an_epoch = sum(each.count for each in run.batches.windows) / run.settings.rows
    for line in plan.lines(run, texts.kept, f'from {beginning}{of_teacher}', an_epoch, first, taught_by):
        progress.note(line)
    state, stopped = train(run, params, optimizer, loss)
    if stopped is None:
        if state.step < steps:
            evaluations = f'{run.habits.patience} evaluations'
            progress.note(f'ended after {state.step:,} updates: no lower held-out loss in {evaluations}')
        if run.team.chief:
            folders.write_record(run.folder, run.record | {DONE: state.step})
        conclude(run, params, texts, state.step, state)
    else:
        progress.note(f'stopped after {state.step:,} updates; saved {state.saved}. The same command goes on from there')
    return stopped


def way_past_end(run: Run, before: Mapping[str, Any], first: int) -> str | None:
    """How a run goes on that has come to its end before, by its updates or by its patience; None for one that has not.
    before: its record. first: the updates of the model that it has."""
    if max(first, before.get(DONE, 0)) >= run.settings.steps:
        return 'with more --steps it goes on'
    state = Progress(first, folders.read_log(run.folder), lambda *_: None)
    if DONE in before and state.out_of_patience(run.habits.patience):
        return 'its patience was at an end, and with more --patience, or none, it goes on'
    return None


def with_way_chosen(run: Run, params: dict, optimizer: Any, loss: TotalLoss, teacher: HParams | None) -> Run:
    """The run, with XLA or without for good: as its record says or, where it is long enough, as a trial finds. Another
    choice would give other losses, in their last bits. XLA may join what is computed twice, so --recompute is left
    without it."""
    settings = run.settings
    if settings.jit_compile is None:
        jit = (
            run.team.replicas == 1
            and not settings.recompute
            and settings.steps * plan.step_seconds(run.hparams, settings, teacher) > WORTH_A_TRIAL
            and faster_compiled(run.hparams, params, settings, run.batches.batch(0), optimizer, loss)
        )
        settings = dataclasses.replace(settings, jit_compile=jit)
    return dataclasses.replace(run, settings=settings, record=run.record | {'jit_compile': settings.jit_compile})


def conclude(run: Run, params: dict, texts: Texts, step: int, state: Progress | None) -> None:
    """Say how good the model is, where it lies and how to use it, and draw the curves."""
    if run.held_out is not None:
        evaluate = make_evaluate(run.hparams, params, run.settings.batch_size, run.team)
        loss, targets = evaluate(run.held_out), run.held_out.targets
        progress.note(held_out_report(run.hparams, run.encoder, loss, texts.kept, targets))
    entries = folders.read_log(run.folder) if run.team.chief else []
    if entries and not draw_curves(os.path.join(run.folder, folders.CURVES), entries):
        progress.note('the curves are not drawn: pip install matplotlib')
    if state is not None:
        best = f'; the lowest held-out loss was after {state.best():,} updates' if state.evaluations else ''
        progress.note(f'saved {state.saved}{best}')
    name = shlex.quote(run.folder)
    progress.note(f'to sample: python src/interactive_conditional_samples.py --model_name {name} --top_k 40')
