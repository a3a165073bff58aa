"""Requests as they are worked on, beside the engine: tokens come in, pieces of answers go out."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2.api import Model
from gpt2.choices import choose
from gpt2.completion import Completion
from gpt2.drawing import NO_TOKEN
from gpt2.encoder import Encoder
from gpt2.flow import fitting
from gpt2.history import History
from gpt2.noise import noise_stream
from gpt2.planning import Plan, make_rules
from gpt2.sampling import Sampling
from gpt2.scoring.logits import score_logits
from gpt2.serving.work import Completions, Done, Embedding, Piece, Scoring, Token, Vector

if TYPE_CHECKING:
    from gpt2.litert.batching import Batch, Prompt, Row


class Job:
    """A request. Its parts begin one by one, as there is room for them in the batch.

    emit: called with each piece of the answer, the last of which is a Done. running: how many parts of it share
    the steps now. places: how much room a part takes in the batch.
    """

    places = 1

    def __init__(self, batch: Batch, encoder: Encoder, emit: Callable[[Any], None]) -> None:
        self.batch, self.encoder, self.emit = batch, encoder, emit
        self.unstarted: collections.deque = collections.deque()
        self.running = 0
        self.fault: Exception | None = None

    def attempt(self, action: Callable, *given: Any) -> None:
        """Do something of this request; what goes wrong is its own, and ends no other."""
        try:
            if not self.fault:
                action(*given)
        except Exception as error:
            self.fault = error

    def start_next(self) -> None:
        """Begin with the next part."""
        self.running += self.places
        self.start(*self.unstarted.popleft())

    def advance(self) -> None:
        """Do what is to be done beside a step of the batch."""

    def end_part(self) -> None:
        self.running -= self.places
        if not self.running and not self.unstarted:
            self.emit(self.done())

    def done(self) -> Done:
        return Done()

    def start(self, *part: Any) -> None:
        raise NotImplementedError

    def cancel(self) -> None:
        """Leave the batch."""
        raise NotImplementedError


class PromptJob(Job):
    """A request that draws nothing: each part is a prompt, of which it hears."""

    def __init__(self, batch: Batch, encoder: Encoder, emit: Callable[[Any], None]) -> None:
        super().__init__(batch, encoder, emit)
        self.prompts: list[Prompt] = []

    def listen_to(self, ids: Sequence[int], first: int, heard: Callable) -> None:
        prompt = self.batch.add_prompt(ids, first, lambda *found: self.attempt(self.hear, prompt, first, heard, found))
        self.prompts.append(prompt)

    def score_after(
        self, prompt: Sequence[int], ids: Sequence[int], start: int, likeliest: int, heard: Callable
    ) -> None:
        """Listen to what comes after a prompt. start: where its text begins. heard: called with its Tokens."""
        targets, tokens = collections.deque(zip(ids, text_offsets(self.encoder, ids, start))), list[Token]()

        def add(logits: np.ndarray, hidden: np.ndarray) -> None:
            tokens.extend(scored(logits, [targets.popleft() for _ in logits], likeliest))
            if not targets:
                heard(tokens)

        self.listen_to([*prompt, *ids[:-1]], len(prompt) - 1, add)

    def hear(self, prompt: Prompt, first: int, heard: Callable, found: tuple) -> None:
        heard(*found)
        if prompt.taken == len(prompt.ids):
            self.leave(prompt)
            self.end_part()

    def leave(self, prompt: Prompt) -> None:
        self.prompts.remove(prompt)
        self.batch.remove_prompt(prompt)

    def cancel(self) -> None:
        self.unstarted.clear()
        for prompt in [*self.prompts]:
            self.leave(prompt)


class ScoringJob(PromptJob):
    """How likely the tokens of a text were."""

    def __init__(self, work: Scoring, batch: Batch, encoder: Encoder, emit: Callable[[Any], None]) -> None:
        super().__init__(batch, encoder, emit)
        self.likeliest = work.likeliest
        self.offsets = text_offsets(encoder, work.ids)
        self.targets = collections.deque(zip(work.ids[1:], self.offsets[1:]))
        self.unstarted.append((work.ids[:-1],))

    def start(self, ids: Sequence[int]) -> None:
        self.listen_to(ids, 0, self.score)

    def score(self, logits: np.ndarray, hidden: np.ndarray) -> None:
        targets = [self.targets.popleft() for _ in logits]
        self.emit(Piece(0, '', tuple(scored(logits, targets, self.likeliest))))


class EmbeddingJob(PromptJob):
    """What the model makes of texts, as numbers."""

    def __init__(self, work: Embedding, batch: Batch, encoder: Encoder, emit: Callable[[Any], None]) -> None:
        super().__init__(batch, encoder, emit)
        self.last = work.last
        self.unstarted.extend(enumerate(work.texts))

    def start(self, index: int, ids: Sequence[int]) -> None:
        first = len(ids) - 1 if self.last else 0
        total, left = np.zeros(self.batch.hparams.n_embd), len(ids) - first

        def add(logits: np.ndarray, hidden: np.ndarray) -> None:
            nonlocal total, left
            total, left = total + hidden.sum(axis=0, dtype=np.float64), left - len(hidden)
            if not left:
                self.emit(Vector(index, tuple((total / (len(ids) - first)).tolist())))

        self.listen_to(ids, first, add)


class CompletionsJob(Job):
    """Samples of prompts: each part is a sample, or a prompt by itself where none is drawn of it."""

    def __init__(self, work: Completions, batch: Batch, encoder: Encoder, emit: Callable[[Any], None]) -> None:
        super().__init__(batch, encoder, emit)
        self.work = work
        self.sampling = sampling_of(work, encoder)
        self.prompts: dict[int, Prompt] = {}  # by number
        self.samples: dict[Row, Sample] = {}  # that are being drawn
        self.ended: dict[int, list[Sample]] = collections.defaultdict(list)  # of each prompt, where the best are sought
        self.left = dict.fromkeys(range(len(work.prompts)), work.best_of if work.length else 1)  # parts of each prompt
        self.drawn = 0
        self.unstarted.extend((place, number + 1) for place, count in self.left.items() for number in range(count))

    def done(self) -> Done:
        return Done(self.drawn)

    def start(self, place: int, number: int) -> None:
        ids = self.work.prompts[place]
        if place not in self.prompts:
            echo = self.work.echo and self.work.logprobs is not None
            listener = self.prompt_listener(place, ids, echo)
            self.prompts[place] = self.batch.add_prompt(self.fitting(ids, place), *listener)
        if self.work.length:
            stream, history = noise_stream(self.work.seed, list(ids), number), History(self.sampling, ids)
            sample = Sample(self, place, number, shown(self.work, self.encoder, place))
            self.add(sample, self.prompts[place], stream, history)

    def fitting(self, ids: Sequence[int], place: int) -> Sequence[int]:
        """What stays of the text of a sample of a prompt."""
        if self.work.keep is None:
            return ids
        return fitting(ids, min(self.work.keep, len(self.work.prompts[place])), self.batch.hparams.n_ctx)

    def add(self, sample: Sample, prompt: Prompt, stream: np.random.Generator, history: History) -> None:
        """Let a sample grow after a prompt of the batch."""
        told = self.work.logprobs is not None or self.work.best_of > self.work.n
        self.samples[self.batch.add_row(prompt, stream, self.sampling, told, history)] = sample

    def prompt_listener(self, place: int, ids: Sequence[int], echo: bool) -> tuple[int | None, Callable | None]:
        """From which position on a prompt is heard, and by what."""
        if not echo and self.work.length:
            return None, None
        offsets = text_offsets(self.encoder, ids)
        targets = collections.deque(zip(ids[1:], offsets[1:]) if echo else ())
        if echo:
            self.emit_all(place, Piece(0, '', (Token(ids[0], 0),)))

        def hear(logits: np.ndarray, hidden: np.ndarray) -> None:
            known = [targets.popleft() for _ in range(min(len(targets), len(logits)))]
            if known:
                tokens = scored(logits[: len(known)], known, self.work.logprobs or 0)
                self.emit_all(place, Piece(0, '', tuple(tokens)))
            if not self.work.length and not targets:
                self.end_prompt(place)

        return (0 if echo else None), functools.partial(self.attempt, hear)

    def emit_all(self, place: int, piece: Piece) -> None:
        """Emit a piece that all choices of a prompt have in common."""
        for number in range(self.work.n):
            self.emit(Piece(place * self.work.n + number, piece.text, piece.tokens, piece.finish_reason))

    def end_prompt(self, place: int) -> None:
        """End the part that is a prompt by itself."""
        self.emit_all(place, Piece(0, '', finish_reason='length'))
        self.leave(place)
        self.end_part()

    def leave(self, place: int) -> None:
        self.left[place] -= 1
        if not self.left[place]:
            self.batch.remove_prompt(self.prompts.pop(place))

    def take(self, row: Row, logits: np.ndarray) -> None:
        """Take the token that a row has drawn, and the logits that the model gave before it."""
        if row.fault:
            raise row.fault
        sample = self.samples[row]
        self.drawn += 1
        sample.add(row.drawn[-1], logits)
        if sample.completion.finish_reason:
            self.remove(row)
            if self.work.best_of > self.work.n:
                self.keep_best(sample)
            self.end_part()
        elif self.work.keep is not None and len(row.prompt.ids) + len(row.drawn) > self.batch.hparams.n_ctx:
            self.remove(row)
            ids = self.fitting([*map(int, row.prompt.ids), *row.drawn], sample.place)
            self.add(sample, self.batch.add_prompt(ids), row.stream, row.history)

    def remove(self, row: Row) -> None:
        """Take a sample out of the batch, with its prompt where no other has that."""
        place = self.samples.pop(row).place
        self.batch.remove_row(row)
        if row.prompt is self.prompts.get(place):
            self.leave(place)
        else:  # what stayed of a text that outgrew the window
            self.batch.remove_prompt(row.prompt)

    def keep_best(self, sample: Sample) -> None:
        """Emit the likeliest samples of a prompt, once all of them are there."""
        ended = self.ended[sample.place]
        ended.append(sample)
        if len(ended) == self.work.best_of:
            best = sorted(ended, key=lambda each: (-each.log_probability / each.drawn, each.number))[: self.work.n]
            for number, each in enumerate(best):
                each.emit(sample.place * self.work.n + number)
            del self.ended[sample.place]

    def cancel(self) -> None:
        self.unstarted.clear()
        for row in self.samples:
            self.batch.remove_row(row)
        for prompt in {*self.prompts.values(), *(row.prompt for row in self.samples)}:
            self.batch.remove_prompt(prompt)


class ChoicesJob(PromptJob):
    """Continuations that are one of several: each part is a prompt with one of them behind it."""

    def __init__(self, work: Completions, batch: Batch, encoder: Encoder, emit: Callable[[Any], None]) -> None:
        super().__init__(batch, encoder, emit)
        self.work, self.sampling, self.drawn = work, Sampling(**work.sampling), 0
        self.scores = np.zeros([len(work.prompts), len(work.choices)])
        self.tokens: dict[tuple[int, int], list[Token]] = {}  # where they are asked for
        self.left = [len(work.choices)] * len(work.prompts)
        self.unstarted.extend(np.ndindex(self.scores.shape))

    def done(self) -> Done:
        return Done(self.drawn)

    def start(self, place: int, index: int) -> None:
        heard = functools.partial(self.end_choice, place, index)
        start, likeliest = shown(self.work, self.encoder, place), self.work.logprobs or 0
        self.score_after(self.work.prompts[place], self.work.choices[index], start, likeliest, heard)

    def end_choice(self, place: int, index: int, tokens: list[Token]) -> None:
        """Draw, once all choices of a prompt are scored."""
        self.scores[place, index] = sum(token.log_probability or 0 for token in tokens)
        if self.work.logprobs is not None:
            self.tokens[place, index] = tokens
        self.left[place] -= 1
        for number in range(1, self.work.n + 1 if not self.left[place] else 1):
            found = choose(self.scores[place], self.work.seed, self.work.prompts[place], number, self.sampling)
            ids = self.work.choices[found]
            self.drawn += len(ids)
            index = place * self.work.n + number - 1
            told = tuple(self.tokens.get((place, found), ()))
            self.emit(Piece(index, self.encoder.decode(ids), told, 'stop', len(ids)))


class SearchJob(PromptJob):
    """The likeliest continuations, searched with beams: each part is a prompt, whose search has rows of its own, or a
    continuation that was found, where its tokens are told."""

    def __init__(self, work: Completions, model: Model, batch: Batch, emit: Callable[[Any], None]) -> None:
        super().__init__(batch, model.encoder, emit)
        self.work, self.model, self.places, self.drawn = work, model, work.beams, 0
        self.sampling = sampling_of(work, model.encoder)
        self.searches: dict[int, tuple[list[Completion], Generator]] = {}  # by the number of the prompt
        self.unstarted.extend((place,) for place in range(len(work.prompts)))

    def done(self) -> Done:
        return Done(self.drawn)

    def start(self, place: int, number: int = 0, found: Completion | None = None) -> None:
        work, n = self.work, self.work.n
        if found is not None:
            heard, start = functools.partial(self.tell, place, number, found), shown(work, self.encoder, place)
            self.score_after(work.prompts[place], found.ids, start, work.logprobs or 0, heard)
            return
        plan = Plan(
            work.seed, work.stop, work.stop_at_end, self.sampling, beams=work.beams, length_penalty=work.length_penalty,
            contexts=[list(work.prompts[place])] * n, lengths=[work.length] * n,
        )  # fmt: skip
        wanted = [Completion(self.encoder, 1 + number, work.stop, work.stop_at_end, work.length) for number in range(n)]
        self.searches[place] = wanted, self.model.search(plan, wanted)

    def advance(self) -> None:
        for place, (found, steps) in [*self.searches.items()]:
            if all(completion.finish_reason for completion in found):
                self.end_search(place)
            else:
                next(steps)

    def end_search(self, place: int) -> None:
        found, _ = self.searches.pop(place)
        for number, completion in enumerate(found):
            self.drawn += len(completion.ids)
            if self.work.logprobs is None or not completion.ids:
                self.tell(place, number, completion, [])
            else:
                self.unstarted.append((place, number, completion))
        self.end_part()

    def tell(self, place: int, number: int, found: Completion, tokens: list[Token]) -> None:
        """Emit a continuation, and its tokens but for those that ended it."""
        end = shown(self.work, self.encoder, place) + len(found.text)
        told = [token for token in tokens if token.offset < end or found.finish_reason == 'length']
        index = place * self.work.n + number
        self.emit(Piece(index, found.text, tuple(told), told_reason(found), len(found.ids)))

    def cancel(self) -> None:
        super().cancel()
        for _, steps in self.searches.values():
            steps.close()


class Sample:
    """A sample that grows. offset: of its first character in the choice's text."""

    def __init__(self, job: CompletionsJob, place: int, number: int, offset: int) -> None:
        self.job, self.place, self.number, self.offset = job, place, number, offset
        work = job.work
        self.completion = Completion(job.encoder, number, work.stop, work.stop_at_end, work.length)
        self.best = work.best_of > work.n
        self.tokens: list[Token] = []  # not emitted yet
        self.drawn, self.log_probability, self.emitted = 0, 0.0, 0

    def add(self, token: int, logits: np.ndarray) -> None:
        self.drawn += 1
        logprobs = self.job.work.logprobs
        if token != NO_TOKEN and (logprobs is not None or self.best):
            start = self.offset + self.completion.offset_of(token)
            [found] = scored(logits[np.newaxis], [(token, start)], logprobs or 0)
            self.log_probability += found.log_probability or 0
            self.tokens += [found] if logprobs is not None else []
        self.completion.add(token)
        if not self.best:
            self.emit((self.place * self.job.work.n) + self.number - 1)

    def emit(self, index: int) -> None:
        """Emit what is new and certain, as the choice of that index."""
        completion = self.completion
        text = completion.new_text()
        end = self.offset + completion.released
        # Without a stop text to come or a character to be completed the last token is certain too.
        certain = [token for token in self.tokens if token.offset < end or completion.finish_reason == 'length']
        self.tokens = self.tokens[len(certain) :]
        reason = completion.finish_reason
        if text or certain or reason:
            self.job.emit(Piece(index, text, tuple(certain), told_reason(completion), self.drawn - self.emitted))
            self.emitted = self.drawn


def sampling_of(work: Completions, encoder: Encoder) -> Sampling:
    """The settings of a piece of work, as engines take them."""
    return Sampling(**work.sampling, rules=make_rules(encoder, work.stop_at_end, **work.texts))


def told_reason(completion: Completion) -> str | None:
    """Why a completion ended, as OpenAI's API has it."""
    reason = completion.finish_reason
    return 'stop' if reason in ('end_of_text', 'nothing_left') else reason


def scored(logits: np.ndarray, targets: Sequence[tuple[int, int]], likeliest: int) -> list[Token]:
    """Tokens, each with what logits, float32 [n, n_vocab], say of it. targets: (id, offset) of each."""
    ids, offsets = zip(*targets)
    found = score_logits(logits, np.array(ids), likeliest=likeliest)
    lists = [some.tolist() for some in found]
    others = [tuple(zip(*pair)) for pair in zip(*lists[3:])] if likeliest else [()] * len(ids)
    return [Token(*each) for each in zip(ids, offsets, lists[0], lists[1], others)]


def shown(work: Completions, encoder: Encoder, place: int) -> int:
    """How many characters of a prompt stand before what is drawn of it."""
    return len(encoder.decode(work.prompts[place])) if work.echo else 0


def text_offsets(encoder: Encoder, ids: Sequence[int], start: int = 0) -> list[int]:
    """Where the text of each of ids begins in the text of all, which itself begins at `start`; see
    Completion.offset_of()."""
    completion = Completion(encoder, 1)
    offsets = []
    for token in ids:
        offsets.append(start + completion.offset_of(token))
        completion.add(token)
    return offsets


def new_job(work: Any, model: Model, batch: Batch, emit: Callable[[Any], None]) -> Job:
    """The Job of a piece of work."""
    encoder = model.encoder
    if isinstance(work, Completions) and work.choices:
        return ChoicesJob(work, batch, encoder, emit)
    if isinstance(work, Completions) and work.beams > 1 and work.length:
        return SearchJob(work, model, batch, emit)
    kinds: dict[type, Any] = {Completions: CompletionsJob, Scoring: ScoringJob, Embedding: EmbeddingJob}
    return kinds[type(work)](work, batch, encoder, emit)
