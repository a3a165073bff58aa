"""The library: a model that is loaded once and used from anywhere. Imports no TensorFlow."""

import collections
import contextlib
import dataclasses
import itertools
import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from types import TracebackType
from typing import Any, overload

import numpy as np

from gpt2 import checks
from gpt2.bans import Ban
from gpt2.beams import Hypothesis, search
from gpt2.checkpoints.folders import DEFAULT_MODELS_DIR, find_model
from gpt2.checkpoints.source import Source, open_source
from gpt2.choices import choice_scores, choose
from gpt2.completion import Completion, complete, ending_ids
from gpt2.encoder import Encoder, utf8
from gpt2.engine import Engine, check_prompt
from gpt2.engines import check_engine, load_engine
from gpt2.errors import Error, UsageError
from gpt2.hparams import HParams
from gpt2.inside import Inside
from gpt2.patterns import Pattern, check_pattern
from gpt2.sampling import ADJUSTMENTS, DRAWING, Rule, Sampling, check_bias, check_length_penalty
from gpt2.scoring.logits import make_score, score_logits
from gpt2.scoring.scores import Score, score_text, token_scores
from gpt2.scoring.windows import check_stride

BATCH_SIZE = 8  # samples drawn at once by complete(), unless another number is given


def load(
    model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, *, engine: str = 'auto',
    precision: str = 'float32',
) -> 'Model':  # fmt: skip
    """Load a model.

    model_name: the name of a folder inside models_dir, or a path: to a model's folder, or to one checkpoint in it.
    None means 124M if it is there, and the bundled model if not. models_dir: the default means `models` in the
    current folder, or else where this library keeps its own.
    engine: 'tf', TensorFlow; 'litert', LiteRT, which is faster on a processor and exports the model once; 'auto',
    TensorFlow where it would use a graphics card and LiteRT elsewhere. precision: 'float32' or, on LiteRT, 'int8'.
    Raises UsageError for arguments that mean nothing, Error for a model that cannot be loaded.
    """
    model = open_model(model_name, models_dir, engine=engine, precision=precision)
    model.engine  # noqa: B018 - loads it
    return model


def open_model(
    model_name: str | None = None, models_dir: str = DEFAULT_MODELS_DIR, *, engine: str = 'auto',
    precision: str = 'float32', prefix: str = '',
) -> 'Model':  # fmt: skip
    """What load() returns, before anything heavy is loaded: that happens when it is first needed.

    prefix: of the names of settings in messages, `--` for a command.
    """
    engine, precision = check_engine(engine, precision, prefix)
    found = find_model(model_name, models_dir, f'{prefix}model_name' if prefix else '')
    return Model(found.name, open_source(found.path), engine, precision, found.notice, prefix)


class Model(Inside):
    """A GPT-2 and its vocabulary. Several threads may use it; a process that is forked must load its own.

    name: of its folder. hparams: its shape. encoder: its vocabulary. notices: what a user should know of it, a line
    each.
    """

    def __init__(
        self, name: str, source: Source, engine: str, precision: str, notice: str | None = None, prefix: str = ''
    ) -> None:
        self.name, self.source, self.prefix = name, source, prefix
        self.notices = [*filter(None, [notice]), *source.notices]
        self.hparams: HParams = source.hparams
        self.encoder: Encoder = source.vocabulary
        self.chosen = engine, precision
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
        return load_engine(self.source, *self.chosen)

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
        too. start: the name of an added token that stands before each prompt, or in place of the end-of-text token,
        for models that were trained so.
        Returns a Completion for a prompt, a list for a list. Raises UsageError.
        """
        alone = prompt is None or isinstance(prompt, str)
        prompts = [prompt] if alone else check_list('prompt', prompt)
        count = 1 if samples is None else checks.integer('samples', samples, 0)
        size = checks.integer('batch_size', batch_size, 1)
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
        if plan.beams > 1 and max(numbers, default=1) > plan.beams:
            raise UsageError(f'{max(numbers)} samples are asked for, the limit is {self.prefix}beams {plan.beams}')
        completions = [
            Completion(self.encoder, number, plan.stop, plan.stop_at_end, room, prompt, plan.seed)
            for prompt, number, room in zip(prompts, numbers, plan.lengths, strict=True)
        ]
        if plan.choices:
            return completions, self.pick(plan, completions)
        if plan.beams > 1:
            return completions, self.search(plan, completions)
        told = plan.logprobs is not None
        rows = self.engine.start(plan.contexts, numbers=numbers, seed=plan.seed, sampling=plan.sampling, told=told)
        if not told:
            return completions, complete(rows, completions)
        for completion in completions:
            completion.logprobs = []

        def hear(completion: Completion, token: int, logits: np.ndarray) -> None:
            found = score_logits(logits[np.newaxis], np.array([token]), likeliest=plan.logprobs or 0)
            assert completion.logprobs is not None
            completion.logprobs.extend(token_scores(self.encoder, [token], *found))

        return completions, complete(rows, completions, hear)

    def search(self, plan: 'Plan', completions: Sequence[Completion]) -> Generator[None, None, None]:
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
            yield

    def ends(self, plan: 'Plan') -> tuple[Callable[[tuple[int, ...]], bool], int]:
        """(whether the last of some ids ends what they say, how many tokens always do)."""
        end_ids = ending_ids(self.encoder) if plan.stop_at_end else set()
        stops = [utf8(stop) for stop in plan.stop]
        longest = max(map(len, stops), default=0)

        def ends(ids: tuple[int, ...]) -> bool:
            tail = self.encoder.decode_bytes(ids[-longest - 1 :]) if stops else b''
            return ids[-1] in end_ids or any(stop in tail for stop in stops)

        return ends, len(end_ids)

    def pick(self, plan: 'Plan', completions: Sequence[Completion]) -> Iterator[None]:
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
            yield

    def plan(
        self, prompts: Sequence[str | None], *, seed: int, length: int | None = None, stop: str | Sequence[str] = (),
        stop_at_end: bool = False, start: str | None = None, ban: str | Sequence[str] = (),
        logit_bias: Mapping[int | str, float] | None = None, choices: str | Sequence[str] = (),
        logprobs: int | None = None, beams: int = 1, length_penalty: float = 1, regex: str | None = None,
        **drawing: Any,
    ) -> 'Plan':  # fmt: skip
        """What drawing continuations of prompts would mean; see complete() for the settings. Raises UsageError."""
        if not isinstance(stop_at_end, bool):
            raise UsageError(f'stop_at_end is {stop_at_end!r}, expected True or False')
        contexts = [self.prompt_ids(prompt, length, start) for prompt in prompts]
        if regex is not None:
            check_pattern(regex, f'{self.prefix}regex')
            stop_at_end = True  # which is how a pattern ends
        rules = make_rules(self.encoder, stop_at_end, ban=check_texts('ban', ban), regex=regex)
        plan = Plan(
            contexts=[ids for ids, _ in contexts],
            lengths=[room for _, room in contexts],
            seed=checks.integer('seed', seed, 0),
            stop=check_texts('stop', stop),
            stop_at_end=stop_at_end,
            sampling=Sampling(**drawing, logit_bias=self.bias(logit_bias or {}), rules=rules),
            choices=tuple((text, self.encoder.encode(text)) for text in check_texts('choices', choices)),
            logprobs=checks.optional_integer(f'{self.prefix}logprobs', logprobs, 0),
            beams=checks.integer(f'{self.prefix}beams', beams, 1),
            length_penalty=check_length_penalty(f'{self.prefix}length_penalty', length_penalty),
        )
        told = plan.logprobs is not None
        if plan.choices:
            others = {'regex': regex, 'length': length, 'stop': stop, 'stop_at_end': stop_at_end, 'ban': ban}
            others |= {'logprobs': told, 'beams': plan.beams > 1}
            self.refuse('choices', others, plan.sampling.changed(ADJUSTMENTS))
            self.check_choices(plan)
        if regex is not None:  # what excludes tokens by other rules could leave it no way on
            self.refuse('regex', {'ban': ban}, plan.sampling.changed(['no_repeat_ngram']))
        if plan.beams > 1:
            self.refuse('beams', {'logprobs': told}, plan.sampling.changed(DRAWING))
        elif plan.length_penalty != 1:
            raise UsageError(f'{self.prefix}length_penalty means nothing without {self.prefix}beams')
        return plan

    def refuse(self, name: str, given: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Raise UsageError for a setting that stands beside one that leaves it no meaning. name: of that one. given:
        some settings; changed: names of others that are not off."""
        if others := [*(other for other, value in given.items() if value), *changed]:
            first, second = f'{self.prefix}{name}', f'{self.prefix}{others[0]}'
            raise UsageError(f'{first} and {second} exclude each other; leave one of them out')

    def check_choices(self, plan: 'Plan') -> None:
        """Raise UsageError for choices of a plan that come twice, or have no room."""
        texts, ids = zip(*plan.choices)
        if twice := [text for text, count in collections.Counter(texts).items() if count > 1]:
            raise UsageError(f'{self.prefix}choices has {twice[0]!r} twice; give each once')
        longest, most = max(map(len, ids)), self.hparams.n_ctx + 1
        for prompt in plan.contexts:
            if len(prompt) + longest > most:
                raise UsageError(
                    f'{len(prompt)} prompt tokens and {longest}, the longest of {self.prefix}choices, are '
                    f'{len(prompt) + longest}, the limit is {most}; shorten one of them'
                )

    def bias(self, given: Mapping[int | str, float]) -> tuple[tuple[int, float], ...]:
        """(id, what is added) of each token. Raises UsageError."""
        name = f'{self.prefix}logit_bias'
        if not isinstance(given, Mapping):
            raise UsageError(f'{name} is {given!r}, expected what is added by token, as in {{50256: -100}}')
        pairs = given.items()
        return tuple({self.token_id(name, token): check_bias(f'{name} of {token!r}', b) for token, b in pairs}.items())

    def token_id(self, name: str, token: int | str) -> int:
        """The id of a token, given by it or as a text. name: of the setting, for a message. Raises UsageError."""
        most = len(self.encoder) - 1
        if isinstance(token, str) and not (token.isascii() and token.isdigit()):
            ids = self.encoder.encode(token, special=True)
            if len(ids) != 1:
                raise UsageError(f'{name} has {token!r}, which is {len(ids)} tokens {ids}, expected one; give its id')
            return ids[0]
        index = checks.integer(f'{name} has a token id that', token, 0)
        if index > most:
            raise UsageError(f'{name} has the token id {index}, expected 0 to {most}')
        return index

    def prompt_ids(
        self, prompt: str | None, length: int | None = None, start: str | None = None
    ) -> tuple[list[int], int]:
        """Token ids of a prompt, after those of start, and how many tokens are drawn after it when so many were asked
        for. Raises UsageError where there is no room for that.
        """
        first = [] if start is None else [self.added_id(start)]
        if prompt is None:
            return first or [self.encoder.end_of_text], self.length(1, length, self.hparams.n_ctx)
        ids = first + self.encoder.encode(check_text('prompt', prompt))
        check_prompt(self.hparams, ids)
        return ids, self.length(len(ids), length, self.hparams.n_ctx // 2)

    def added_id(self, name: str) -> int:
        """The id of an added token. Raises UsageError for a name that is none."""
        if not isinstance(name, str) or name not in self.encoder.added:
            known = ', '.join(self.encoder.added)
            raise UsageError(f"{self.prefix}start is {name!r}, expected one of the model's added tokens: {known}")
        return self.encoder.added[name]

    def length(self, taken: int, length: int | None, default: int) -> int:
        """Tokens to draw after so many: length, or when it is None the default, shrunk to fit. Raises UsageError."""
        name = f'{self.prefix}length'
        length = checks.optional_integer(name, length, 1)
        room = self.hparams.n_ctx + 1 - taken
        if length is None:
            return max(1, min(default, room))
        if length > room and taken == 1:
            raise UsageError(f'{name} is {length}, the model allows at most {room}')
        if length > room:
            raise UsageError(
                f'{taken} prompt tokens and {name} {length} are {taken + length}, the limit is '
                f'{self.hparams.n_ctx + 1}; {name} {room} fits'
            )
        return length

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


@dataclasses.dataclass(frozen=True)
class Plan:
    """Prompts and settings, checked. contexts: the ids of each prompt. lengths: how many tokens come after each.
    choices: texts of which each continuation is one, with their ids. logprobs: how many likeliest tokens are told of
    each; None tells nothing. beams: how many are searched with; 1 draws."""

    contexts: list[list[int]]
    lengths: list[int]
    seed: int
    stop: tuple[str, ...]
    stop_at_end: bool
    sampling: Sampling
    choices: tuple[tuple[str, list[int]], ...] = ()
    logprobs: int | None = None
    beams: int = 1
    length_penalty: float = 1

    @property
    def together(self) -> bool:
        """Whether all samples of a prompt come from one computation, so that they should share a batch."""
        return self.beams > 1 or bool(self.choices)


def new_seed() -> int:
    """Another one every time, below 2**32."""
    return int.from_bytes(os.urandom(4), 'big')


def check_text(name: str, text: Any) -> str:
    """text, if it is one. Raises UsageError, which calls it by name."""
    if not isinstance(text, str):
        raise UsageError(f'the {name} is {text!r}, expected a text')
    return text


def check_list(name: str, values: Any) -> list[Any]:
    """values as a list, if they are several, in an order. Raises UsageError."""
    if isinstance(values, bytes | Set | Mapping) or not isinstance(values, Iterable):
        raise UsageError(f'the {name} is {values!r}, expected a text or a list of texts')
    return list(values)


def check_texts(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """A text, or several, as a tuple. Raises UsageError, which calls them by name, for what is none, and for an empty
    one."""
    texts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    for text in texts:
        if not isinstance(text, str) or not text:
            what = 'empty' if text == '' else repr(text)
            raise UsageError(f'{name} is {what}, expected a text of at least one character')
    return texts


def make_rules(
    encoder: Encoder, stop_at_end: bool, ban: Sequence[str] = (), regex: str | None = None
) -> tuple[Rule, ...]:  # fmt: skip
    """The rules that settings made of texts are to an engine. stop_at_end: whether the tokens that end a text end a
    sample, and so are no part of it. Raises Error where a pattern's library is not there."""
    rules: list[Rule] = [Ban(encoder, ban, ending_ids(encoder) if stop_at_end else set())] if ban else []
    return (*rules, Pattern(encoder, regex)) if regex is not None else tuple(rules)
