"""What is asked for, checked: prompts and settings become a plan, before anything is drawn. Imports no TensorFlow."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

from gpt2 import checks
from gpt2.bans import Ban
from gpt2.completion import ending_ids
from gpt2.encoder import Encoder
from gpt2.engine import check_prompt
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.patterns import Pattern, check_pattern
from gpt2.sampling import ADJUSTMENTS, DRAWING, Rule, Sampling, check_bias, check_length_penalty


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings and prompts, checked.

    contexts: the ids of each prompt, those of start before. lengths: how many tokens come after each. length: how many
    were asked for. start: ids that come before every prompt. choices: texts of which each continuation is one, with
    their ids. logprobs: how many likeliest tokens are told of each; None tells nothing. beams: how many are searched
    with; 1 draws. beyond_window: whether a text may outgrow the window; keep_prompt: how many of its first tokens stay
    then.
    """

    seed: int
    stop: tuple[str, ...]
    stop_at_end: bool
    sampling: Sampling
    length: int | None = None
    start: list[int] = dataclasses.field(default_factory=list)
    choices: tuple[tuple[str, list[int]], ...] = ()
    logprobs: int | None = None
    beams: int = 1
    length_penalty: float = 1
    beyond_window: bool = False
    keep_prompt: int = 0
    contexts: list[list[int]] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)

    @property
    def together(self) -> bool:
        """Whether all samples of a prompt come from one computation, so that they should share a batch."""
        return self.beams > 1 or bool(self.choices)


class Request(NamedTuple):
    """A sample that is asked for: a prompt, which sample of it, and what Planner.settle() takes."""

    prompt: str | None
    number: int
    settings: Mapping[str, Any]


def numbered(wanted: Iterable[tuple[str | None, int, Mapping[str, Any]]]) -> Iterator[Request]:
    """Yield what is asked for of (prompt, samples, settings), one request a sample. Where a prompt comes again with the
    same seed, its samples are numbered on: otherwise they would be the same. Raises UsageError."""
    known: collections.Counter[tuple[Any, str | None]] = collections.Counter()
    for prompt, samples, settings in wanted:
        seed = checks.integer('seed', settings['seed'], 0)
        key = seed, None if prompt is None else check_text('prompt', prompt)
        for _ in range(samples):
            known[key] += 1
            yield Request(prompt, known[key], settings)


class Planner:
    """Checks what is asked of a model. prefix: of the names of settings in messages, `--` for a command."""

    def __init__(self, hparams: HParams, encoder: Encoder, prefix: str = '') -> None:
        self.hparams, self.encoder, self.prefix = hparams, encoder, prefix

    def plan(self, prompts: Sequence[str | None], **settings: Any) -> Plan:
        """What drawing continuations of prompts would mean; see Model.complete() for the settings. Raises
        UsageError."""
        return self.with_prompts(self.settle(**settings), prompts)

    def with_prompts(self, plan: Plan, prompts: Sequence[str | None]) -> Plan:
        """A plan with other prompts. Raises UsageError."""
        contexts = [self.context(prompt, plan) for prompt in prompts]
        if plan.choices:
            self.check_choices(plan, contexts)
        lengths = [
            self.length(len(ids), plan, self.hparams.n_ctx // (1 if prompt is None else 2))
            for prompt, ids in zip(prompts, contexts)
        ]
        return dataclasses.replace(plan, contexts=contexts, lengths=lengths)

    def settle(
        self, *, seed: int, length: int | None = None, stop: str | Sequence[str] = (), stop_at_end: bool = False,
        start: str | None = None, ban: str | Sequence[str] = (), logit_bias: Mapping[int | str, float] | None = None,
        choices: str | Sequence[str] = (), logprobs: int | None = None, beams: int = 1, length_penalty: float = 1,
        regex: str | None = None, beyond_window: bool = False, keep_prompt: int = 0, **drawing: Any,
    ) -> Plan:  # fmt: skip
        """The plan that settings are, without prompts. Raises UsageError."""
        check_switch('stop_at_end', stop_at_end)
        if regex is not None:
            check_pattern(regex, f'{self.prefix}regex')
            stop_at_end = True  # which is how a pattern ends
        rules = make_rules(self.encoder, stop_at_end, ban=check_texts('ban', ban), regex=regex)
        plan = Plan(
            seed=checks.integer('seed', seed, 0),
            length=checks.optional_integer(f'{self.prefix}length', length, 1),
            start=[] if start is None else [self.added_id(start)],
            stop=check_texts('stop', stop),
            stop_at_end=stop_at_end,
            sampling=Sampling(**drawing, logit_bias=self.bias({} if logit_bias is None else logit_bias), rules=rules),
            choices=tuple((text, self.encode('choice', text)) for text in check_texts('choices', choices)),
            logprobs=checks.optional_integer(f'{self.prefix}logprobs', logprobs, 0),
            beams=checks.integer(f'{self.prefix}beams', beams, 1),
            length_penalty=check_length_penalty(f'{self.prefix}length_penalty', length_penalty),
            beyond_window=check_switch('beyond_window', beyond_window),
            keep_prompt=checks.integer(f'{self.prefix}keep_prompt', keep_prompt, 0),
        )
        self.check_together(plan, {'ban': ban, 'regex': regex})
        self.check_beyond(plan)
        return plan

    def check_together(self, plan: Plan, given: Mapping[str, Any]) -> None:
        """Raise UsageError for settings of a plan, and for others as they were given, that exclude one another or mean
        nothing without one another."""
        changed = plan.sampling.changed
        if plan.choices:
            others = {**given, 'length': plan.length, 'stop': plan.stop, 'stop_at_end': plan.stop_at_end}
            others |= {'beams': plan.beams > 1, 'beyond_window': plan.beyond_window}
            self.refuse('choices', others, changed(ADJUSTMENTS))
            self.check_twice(plan)
        if given['regex'] is not None:  # what excludes tokens by other rules could leave it no way on
            self.refuse('regex', {'ban': given['ban']}, changed(['no_repeat_ngram']))
        if plan.beams > 1:
            self.refuse('beams', {'beyond_window': plan.beyond_window}, changed(DRAWING))
        elif plan.length_penalty != 1:
            raise UsageError(f'{self.prefix}length_penalty means nothing without {self.prefix}beams')

    def check_beyond(self, plan: Plan) -> None:
        name, most = f'{self.prefix}keep_prompt', self.hparams.n_ctx // 2
        if plan.keep_prompt and not plan.beyond_window:
            raise UsageError(f'{name} means nothing without {self.prefix}beyond_window')
        if plan.keep_prompt > most:
            raise UsageError(f'{name} is {plan.keep_prompt}, expected at most {most}, half of the window')

    def refuse(self, name: str, given: Mapping[str, Any], changed: Sequence[str]) -> None:
        """Raise UsageError for a setting that stands beside one that leaves it no meaning. name: of that one. given:
        some settings; changed: names of others that are not off."""
        if others := [*(other for other, value in given.items() if value), *changed]:
            first, second = f'{self.prefix}{name}', f'{self.prefix}{others[0]}'
            raise UsageError(f'{first} and {second} exclude each other; leave one of them out')

    def check_twice(self, plan: Plan) -> None:
        """Raise UsageError for choices that come twice."""
        counts = collections.Counter(text for text, _ in plan.choices)
        if twice := [text for text, count in counts.items() if count > 1]:
            raise UsageError(f'{self.prefix}choices has {twice[0]!r} twice; give each once')

    def check_choices(self, plan: Plan, contexts: Sequence[Sequence[int]]) -> None:
        """Raise UsageError for choices that have no room after a prompt."""
        longest, most = max(len(ids) for _, ids in plan.choices), self.hparams.n_ctx + 1
        for prompt in contexts:
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
        found: dict[int, float] = {}
        for token, value in given.items():
            index = self.token_id(name, token)
            if index in found:
                raise UsageError(f'{name} has the token {index} twice, the second time as {token!r}; give each once')
            found[index] = check_bias(f'{name} of {token!r}', value)
        return tuple(found.items())

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

    def added_id(self, name: str) -> int:
        """The id of an added token. Raises UsageError for a name that is none."""
        if not isinstance(name, str) or name not in self.encoder.added:
            known = ', '.join(self.encoder.added)
            raise UsageError(f"{self.prefix}start is {name!r}, expected one of the model's added tokens: {known}")
        return self.encoder.added[name]

    def context(self, prompt: str | None, plan: Plan) -> list[int]:
        """Token ids of a prompt, after those with which the plan starts. Raises UsageError where there is no room."""
        if prompt is None:
            return plan.start or [self.encoder.end_of_text]
        check_text('prompt', prompt)
        ids = plan.start + (self.encoder.encode(prompt) if plan.beyond_window else self.encode('prompt', prompt))
        check_prompt(self.hparams, ids[: self.hparams.n_ctx] if plan.beyond_window else ids)
        return ids

    def encode(self, name: str, text: str) -> list[int]:
        """Token ids of a text. Raises UsageError, which calls it by name, for one that is so long that it cannot fit
        the window whatever its tokens: a file that is no text of lines can have a line of many megabytes."""
        most = self.hparams.n_ctx * self.encoder.longest
        if len(text) > most:
            limit = f'the limit is {self.hparams.n_ctx} tokens, which are {most} characters at most'
            raise UsageError(f'the {name} has {len(text)} characters, {limit}; shorten it')
        return self.encoder.encode(text)

    def length(self, taken: int, plan: Plan, default: int) -> int:
        """Tokens to draw after so many: those a plan asks for, or else the default, shrunk to fit. Raises
        UsageError."""
        name, length = f'{self.prefix}length', plan.length
        if plan.beyond_window:
            return length or default
        room = self.hparams.n_ctx + 1 - taken
        if length is None:
            return max(1, min(default, room))
        beyond = f'{self.prefix}beyond_window'
        if length > room and taken == 1:
            raise UsageError(f'{name} is {length}, the model allows at most {room}, or {beyond} any')
        if length > room:
            raise UsageError(
                f'{taken} prompt tokens and {name} {length} are {taken + length}, the limit is '
                f'{self.hparams.n_ctx + 1}; {name} {room} fits, and {beyond} lifts it'
            )
        return length


def check_switch(name: str, value: Any) -> bool:
    """value, if it is a bool. Raises UsageError, which calls it by name."""
    if not isinstance(value, bool):
        raise UsageError(f'{name} is {value!r}, expected True or False')
    return value


def check_text(name: str, text: Any) -> str:
    """text, if it is one. Raises UsageError, which calls it by name."""
    if not isinstance(text, str):
        raise UsageError(f'the {name} is {text!r}, expected a text')
    return text


def check_list(name: str, values: Any) -> list[Any]:
    """values as a list, if they are several, in an order. Raises UsageError."""
    return list(check_several(name, values))


def check_several(name: str, values: Any) -> Iterable[Any]:
    """values, if they are several, in an order. Raises UsageError, which calls them by name."""
    if isinstance(values, bytes | Set | Mapping) or not isinstance(values, Iterable):
        raise UsageError(f'the {name} is {values!r}, expected a text or a list of texts')
    return values


def check_texts(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """A text, or several, as a tuple. Raises UsageError, which calls them by name, for what is none, and for an empty
    one."""
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    texts: tuple[Any, ...] = tuple(given) if several else (given,)
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
