"""The library: a model that is loaded once and used from anywhere. Imports no TensorFlow."""

import collections
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, overload

import numpy as np

from gpt2 import checks
from gpt2.beams import Hypothesis, search
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, find_model
from gpt2.checkpoints.source import Source, open_source
from gpt2.choices import choice_scores, choose
from gpt2.completion import Completion, complete, ending_ids
from gpt2.encoder import Encoder, utf8
from gpt2.engine import Engine
from gpt2.engines import check_engine, load_engine, open_batch
from gpt2.errors import Error, UsageError
from gpt2.flow import Hear, Task, flow
from gpt2.hparams import HParams
from gpt2.inside import Inside
from gpt2.planning import Plan, Planner, Request, check_list, check_several, check_text, numbered
from gpt2.scoring.logits import make_score, score_logits
from gpt2.scoring.scores import Score, score_text, token_scores
from gpt2.scoring.windows import check_stride

BATCH_SIZE = 8  # samples drawn at once by complete(), unless another number is given


def load(
    model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, *, engine: str = 'auto',
    precision: str = 'float32', draft: str | None = None,
) -> 'Model':  # fmt: skip
    """Load a model.

    model_name: the name of a folder inside models_dir, or a path: to a model's folder, or to one checkpoint in it.
    None means 124M if it is there, and the bundled model if not. models_dir: the default means `models` in the
    current folder, or else where this library keeps its own.
    engine: 'tf', TensorFlow; 'litert', LiteRT, which is faster on a processor and exports the model once; 'auto',
    TensorFlow where it would use a graphics card and LiteRT elsewhere. precision: 'float32' or, on LiteRT, 'int8'
    or 'int4'. draft: the name or path of a smaller model with the same vocabulary, which guesses tokens where one
    sample is drawn by itself, without regex: it takes less time, and is the same sample. Needs LiteRT and float32.
    Raises UsageError for arguments that mean nothing, Error for a model that cannot be loaded.
    """
    model = open_model(model_name, models_dir, engine=engine, precision=precision, draft=draft)
    model.engine  # noqa: B018 - loads it
    return model


def open_model(
    model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, *, engine: str = 'auto',
    precision: str = 'float32', draft: str | None = None, prefix: str = '',
) -> 'Model':  # fmt: skip
    """What load() returns, before anything heavy is loaded: that happens when it is first needed.

    prefix: of the names of settings in messages, `--` for a command.
    """
    engine, precision = check_engine(engine, precision, prefix)
    for name, needed, given in ('engine', 'litert', engine), ('precision', 'float32', precision):
        if draft is not None and given not in (needed, 'auto'):
            raise UsageError(f'{prefix}draft needs {prefix}{name} {needed}, not {given}; leave one of them out')
    found = find_model(model_name, models_dir, f'{prefix}model_name' if prefix else '')
    source = open_source(found.path)
    guessing = None if draft is None else open_draft(draft, models_dir, source, prefix)
    return Model(found.name, source, engine, precision, found.notice, prefix, guessing)


def open_draft(name: str, models_dir: str, source: Source, prefix: str) -> Source:
    """The model that guesses the tokens of another, source. Raises UsageError for one that cannot."""
    try:
        found = find_model(name, models_dir, None)
    except UsageError as error:
        raise UsageError(f'{prefix}draft: {error}') from None
    draft = open_source(found.path)
    if not draft.vocabulary.same_tokens(source.vocabulary) or draft.hparams.n_vocab != source.hparams.n_vocab:
        raise UsageError(
            f'{prefix}draft {name} has another vocabulary than {source.path}; give a model with the same tokens'
        )
    return draft


class Model(Inside):
    """A GPT-2 and its vocabulary. Several threads may use it; a process that is forked must load its own.

    name: of its folder. hparams: its shape. encoder: its vocabulary. notices: what a user should know of it, a line
    each.
    """

    def __init__(
        self, name: str, source: Source, engine: str, precision: str, notice: str | None = None, prefix: str = '',
        draft: Source | None = None,
    ) -> None:  # fmt: skip
        self.name, self.source, self.prefix, self.draft = name, source, prefix, draft
        self.notices = [*filter(None, [notice]), *source.notices]
        self.hparams: HParams = source.hparams
        self.encoder: Encoder = source.vocabulary
        self.chosen = engine, precision
        self.planner = Planner(self.hparams, self.encoder, prefix)
        self.loading = threading.Lock()
        self.loaded: Engine | None = None
        self.closed = False

    def __repr__(self) -> str:
        engine, precision = self.chosen
        return f'Model({self.name!r}, engine={engine!r}, precision={precision!r})'

    def __enter__(self) -> 'Model':
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def engine(self) -> Engine:
        """What computes; loaded when it is first asked for. Raises Error once the model is closed."""
        with self.loading:
            if self.closed:
                raise Error('the model is closed; load it again')
            if self.loaded is None:
                self.loaded = self.new_engine()
            return self.loaded

    def new_engine(self) -> Engine:
        return load_engine(self.source, *self.chosen, self.draft)

    def close(self) -> None:
        """Give back the memory of the model, which can only encode and decode after that."""
        with self.loading:
            self.closed = True
            for engine in (self.loaded, self.tapped):
                if engine is not None and not engine.closed:
                    engine.close()

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text. special: take the names of added tokens in it, `<|endoftext|>` among them, for these
        tokens; otherwise their ids never come."""
        return self.encoder.encode(check_text('text', text), special)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD. Raises UsageError for an id that is none."""
        try:
            return self.encoder.decode(ids)
        except (ValueError, TypeError) as error:
            raise UsageError(f'the ids cannot be decoded: {error}') from None

    @overload
    def complete(self, prompt: str | None = None, *, samples: None = None, **settings: Any) -> Completion: ...
    @overload
    def complete(self, prompt: str | None = None, *, samples: int, **settings: Any) -> list[Completion]: ...
    @overload
    def complete(self, prompt: Sequence[str], *, samples: None = None, **settings: Any) -> list[Completion]: ...
    @overload
    def complete(self, prompt: Sequence[str], *, samples: int, **settings: Any) -> list[list[Completion]]: ...

    def complete(
        self, prompt: Any = None, *, samples: int | None = None, batch_size: int = BATCH_SIZE, seed: int | None = None,
        **settings: Any,
    ) -> Any:  # fmt: skip
        """Continue a prompt, or each of a list of prompts.

        prompt: a text, a list of texts of any lengths, or None, which draws from nothing: from the end-of-text token.
        samples: how many of each prompt; if it is given, a list of so many stands for each prompt in what is returned.
        batch_size: samples drawn at once, at least 1; what they say does not depend on it.
        seed: int, at least 0; with it and the same settings each prompt has the same samples. None is another one
        every time. length: tokens a sample, at least 1, prompt and length together at most n_ctx + 1; None is
        half of n_ctx, or less where the prompt needs the room, and n_ctx from nothing. temperature, top_k, top_p,
        top_p_rule, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty, no_repeat_ngram: see
        sampling.Sampling, whose module says in which order they act. logit_bias: {token: what is added to its logit,
        -100 to 100}; a token is an id, or a text that is one token. ban: a text, or several, that no sample will hold.
        choices: texts of which each sample is one, drawn by the probability that the model gives to its tokens, as a
        token is from the vocabulary; completion.choices has the logarithms of them all.
        logprobs: at least 0; completion.logprobs has what score() tells of each token, with so many likeliest ones in
        its place: the model's own probabilities, before any setting. beams: at least 1; above 1 samples are not drawn
        but the likeliest that a search with so many beams finds, as many at most. length_penalty: -10 to 10; they are
        compared by their log-probability divided by the number of their tokens to this power, so 0 favours short ones.
        regex: a pattern, in the syntax of Rust's regex without look-around, that each sample, whole, will match unless
        its length cuts it; it ends with the end-of-text token. Needs requirements-regex.txt.
        stop: a text, or several, before which a sample ends. stop_at_end: whether it ends at the end-of-text token
        too. beyond_window: whether a text may outgrow the window of n_ctx tokens: then its first keep_prompt tokens
        stay, at most half of the window, and the newest half of the other places, and these are processed again; length
        has no limit. start: the name of an added token that stands before each prompt, or in place of the end-of-text
        token, for models that were trained so.
        Returns a Completion for a prompt, a list for a list. Raises UsageError.
        """
        alone = prompt is None or isinstance(prompt, str)
        prompts = [prompt] if alone else check_list('prompt', prompt)
        count = 1 if samples is None else checks.integer('samples', samples, 0)
        size = min(checks.integer('batch_size', batch_size, 1), sys.maxsize)  # as far as islice() counts
        seed = new_seed() if seed is None else seed
        plan = self.plan(prompts, seed=seed, **settings)  # what is wrong is refused before anything is drawn
        size = max(size, len(prompts) * count) if plan.together else size
        wanted = itertools.product(prompts, range(1, count + 1))
        found: list[Completion] = []
        while batch := list(itertools.islice(wanted, size)):
            completions, steps = self.begin(*zip(*batch), seed=seed, **settings)
            for _ in steps:
                pass
            found += completions
        groups = [found[place * count : (place + 1) * count] for place in range(len(prompts))]
        results = [group[0] for group in groups] if samples is None else groups
        return results[0] if alone else results

    def complete_each(
        self, prompts: Iterable[str | Mapping[str, Any] | None], *, samples: int = 1, batch_size: int = BATCH_SIZE,
        seed: int | None = None, **settings: Any,
    ) -> Iterator[Completion]:  # fmt: skip
        """Continue any number of prompts, and yield their completions in order, as soon as each is whole.

        prompts: texts, or mappings of `prompt`, `seed`, `samples` and other settings to what they are for this one;
        they are taken as they are needed. samples: of each prompt. batch_size: samples drawn at once; the next is begun
        when one has ended. A prompt that comes again gets the samples that follow: with the same seed, each is what
        complete() gives as that sample of the prompt alone. Otherwise as complete(). Raises UsageError, for a prompt
        when its turn has come.
        """
        size = checks.integer('batch_size', batch_size, 1)
        settings['seed'] = new_seed() if seed is None else seed
        self.planner.settle(**settings)
        several = [prompts] if isinstance(prompts, str) else check_several('prompt', prompts)

        def wanted() -> Iterator[tuple[str | None, int, Mapping[str, Any]]]:
            for given in several:
                own = {**given} if isinstance(given, Mapping) else {'prompt': given}
                prompt, count = own.pop('prompt', None), checks.integer('samples', own.pop('samples', samples), 0)
                yield prompt, count, settings | own if own else settings

        return itertools.chain.from_iterable(self.draw_each(numbered(wanted()), size))

    def draw_each(self, requests: Iterable[Request], size: int) -> Iterator[list[Completion]]:
        """Draw what is asked for, at most `size` samples at once. Yields after every step the completions that are
        whole and before which all others are, which may be none. Raises UsageError, for a request when its turn has
        come."""
        order: collections.deque[Completion] = collections.deque()

        def tasks() -> Iterator[Task]:
            settings, plan = None, None
            for request in requests:
                if plan is None or request.settings is not settings:
                    settings, plan = request.settings, self.planner.settle(**request.settings)
                own = self.planner.with_prompts(plan, [request.prompt])
                [task] = self.tasks(own, self.completions(own, [request.prompt], [request.number]))
                if plan.together:
                    collections.deque(self.grow(own, [task.completion]), maxlen=0)
                order.append(task.completion)
                yield task

        for _ in flow(open_batch(self.engine), tasks(), size):
            whole = []
            while order and order[0].finish_reason:
                whole.append(order.popleft())
            yield whole

    def stream(
        self, prompt: str | None = None, *, sample: int = 1, seed: int | None = None, **settings: Any
    ) -> Iterator[str]:
        """The text of one completion piece by piece as it is drawn: whole characters, and nothing that a stop text may
        still take back. sample: which sample of the prompt, from 1; otherwise as complete()."""
        sample = checks.integer('sample', sample, 1)
        [completion], steps = self.begin([prompt], [sample], seed=new_seed() if seed is None else seed, **settings)
        return (piece for _ in steps if (piece := completion.new_text()))

    def begin(
        self, prompts: Sequence[str | None], numbers: Sequence[int], **settings: Any
    ) -> tuple[list[Completion], Iterator[None]]:
        """One batch: its completions, one a prompt, and the steps in which they grow. numbers: which sample of its
        prompt each is. settings: as plan() takes them. Everything is checked before this returns, and nothing drawn.
        Raises UsageError."""
        plan = self.plan(prompts, **settings)
        completions = self.completions(plan, prompts, numbers)
        return completions, self.grow(plan, completions)

    def completions(
        self, plan: Plan, prompts: Sequence[str | None], numbers: Sequence[int]
    ) -> list[Completion]:
        """Completions of a plan, one a prompt, of which nothing is drawn. Raises UsageError."""
        if plan.beams > 1 and max(numbers, default=1) > plan.beams:
            raise UsageError(f'{max(numbers)} samples are asked for, the limit is {self.prefix}beams {plan.beams}')
        found = [
            Completion(self.encoder, number, plan.stop, plan.stop_at_end, room, prompt, plan.seed)
            for prompt, number, room in zip(prompts, numbers, plan.lengths, strict=True)
        ]
        for completion in found if plan.logprobs is not None else ():
            completion.logprobs = []
        return found

    def grow(self, plan: Plan, completions: Sequence[Completion]) -> Iterator[Any]:
        """The steps in which completions of a plan, one a prompt, grow."""
        if plan.choices:
            return self.pick(plan, completions)
        if plan.beams > 1:
            return self.search(plan, completions)
        if plan.beyond_window:
            return flow(open_batch(self.engine), self.tasks(plan, completions), len(completions))
        numbers, told = [completion.number for completion in completions], plan.logprobs is not None
        rows = self.engine.start(plan.contexts, numbers=numbers, seed=plan.seed, sampling=plan.sampling, told=told)
        return complete(rows, completions, self.listener(plan))

    def tasks(self, plan: Plan, completions: Sequence[Completion]) -> list[Task]:
        """What a batch draws so that completions of a plan, one a prompt, grow."""
        keep = plan.keep_prompt if plan.beyond_window else None
        return [
            Task(ids, plan.seed, plan.sampling, completion, self.listener(plan), keep)
            for ids, completion in zip(plan.contexts, completions)
        ]

    def listener(self, plan: Plan) -> Hear | None:
        """What notes how likely the model had each token that is drawn, where that is asked for."""
        if plan.logprobs is None:
            return None
        likeliest = plan.logprobs

        def hear(completion: Completion, token: int, logits: np.ndarray) -> None:
            found = score_logits(logits[np.newaxis], np.array([token]), likeliest=likeliest)
            assert completion.logprobs is not None
            completion.logprobs.extend(token_scores(self.encoder, [token], *found))

        return hear

    def note_all(self, plan: Plan, prompt: Sequence[int], completion: Completion) -> None:
        """Note of each token of a completion, after a prompt, how likely the model has it, where that is asked for."""
        if plan.logprobs is not None and completion.logprobs is not None and completion.ids:
            score = make_score(self.engine, likeliest=plan.logprobs)
            [found] = score([([*prompt, *completion.ids], len(completion.ids))])
            completion.logprobs.extend(token_scores(self.encoder, completion.ids, *found))

    def search(self, plan: Plan, completions: Sequence[Completion]) -> Generator[None, None, None]:
        """Make completions, one a prompt of a plan, the likeliest that beams find: the first, second and so on of its
        prompt by their numbers. Yields after every step."""
        known: dict[tuple[int, ...], list[Hypothesis]] = {}
        for prompt, completion, length in zip(map(tuple, plan.contexts), completions, plan.lengths):
            if prompt not in known:
                with contextlib.closing(
                    self.engine.start([prompt], numbers=[1], seed=plan.seed, sampling=plan.sampling)
                ) as rows:
                    ends, count = self.ends(plan)
                    known[prompt] = yield from search(rows, plan.beams, length, plan.length_penalty, ends, count)
            for hypothesis in known[prompt][completion.number - 1 : completion.number]:
                completion.log_probability = hypothesis.log_probability
                for token in hypothesis.ids:
                    completion.add(token)
            completion.finish('nothing_left')  # unless it has ended
            self.note_all(plan, prompt, completion)
            yield

    def ends(self, plan: Plan) -> tuple[Callable[[tuple[int, ...]], bool], int]:
        """(whether the last of some ids ends what they say, how many tokens always do)."""
        end_ids = ending_ids(self.encoder) if plan.stop_at_end else set()
        stops = [utf8(stop) for stop in plan.stop]
        longest = max(map(len, stops), default=0)

        def ends(ids: tuple[int, ...]) -> bool:
            tail = self.encoder.decode_bytes(ids[-longest - 1 :]) if stops else b''
            return ids[-1] in end_ids or any(stop in tail for stop in stops)

        return ends, len(end_ids)

    def pick(self, plan: Plan, completions: Sequence[Completion]) -> Iterator[None]:
        """Make completions, one a prompt of a plan, one of its choices each. Yields after each."""
        texts, ids = zip(*plan.choices)
        known: dict[tuple[int, ...], Any] = {}  # by prompt, the scores of all choices
        for prompt, completion in zip(map(tuple, plan.contexts), completions):
            if prompt not in known:
                known[prompt] = choice_scores(self.engine, prompt, ids)
            completion.choices = list(zip(texts, known[prompt].tolist()))
            for token in ids[choose(known[prompt], plan.seed, prompt, completion.number, plan.sampling)]:
                completion.add(token)
            completion.finish('choice')
            self.note_all(plan, prompt, completion)
            yield

    def plan(self, prompts: Sequence[str | None], **settings: Any) -> Plan:
        """What drawing continuations of prompts would mean; see complete() for the settings. Raises UsageError."""
        return self.planner.plan(prompts, **settings)

    def token_id(self, name: str, token: int | str) -> int:
        """See Planner.token_id()."""
        return self.planner.token_id(name, token)

    def score(
        self, text: str, *, likeliest: int = 0, stride: int | None = None, end_of_text: bool = True
    ) -> Score:
        """The log-probability of a text in nats, and of each of its tokens: id, bytes, log_probability, rank, and the
        so many likeliest tokens in its place.

        likeliest: at least 0. stride: tokens by which the window moves over a text longer than n_ctx,
        from 1 to n_ctx; None is half of n_ctx. end_of_text: whether the text is scored as what follows the
        end-of-text token; if not, its first token is only context. Raises UsageError.
        """
        count = checks.integer('likeliest', likeliest, 0)
        stride = check_stride('stride', stride, self.hparams.n_ctx)
        check_text('text', text)
        score = make_score(self.engine, likeliest=min(count, self.hparams.n_vocab))
        return score_text(score, self.encoder, text, self.hparams.n_ctx, stride, end_of_text)

    def ablated(self, changes: str, reference: str | None = None) -> 'AblatedModel':
        """This model with some neurons and heads changed, whatever is then asked of it: complete, score, activations.
        It computes on TensorFlow, with the same weights in memory.

        changes: `h5.mlp.131,h9.head.6` are ablated, made 0; inspection/changes.py says what else can become of them.
        reference: the text from which =mean and =patch take what they put in their place. Raises UsageError.
        """
        return AblatedModel(self, changes, reference)


class AblatedModel(Model):
    """A model, some of whose neurons and heads are changed."""

    def __init__(self, model: Model, changes: str, reference: str | None) -> None:
        super().__init__(model.name, model.source, 'tf', 'float32', prefix=model.prefix)
        self.model, self.reference, self.notices = model, reference, model.notices
        self.wanted = model.changes(changes, reference)

    def new_engine(self) -> Engine:
        return self.model.changed_engine(self.wanted, self.reference)


def new_seed() -> int:
    """Another one every time, below 2**32."""
    return int.from_bytes(os.urandom(4), 'big')
