"""A loaded model as evaluation tasks use it: it scores rows and texts, and continues token ids."""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from gpt2.completion import Completion
from gpt2.encoder import Encoder, utf8
from gpt2.engine import Engine
from gpt2.errors import UsageError
from gpt2.hparams import HParams
from gpt2.scoring.text_stream import Measure, encode_stream
from gpt2.scoring.windows import Row, batches, windows
from gpt2.system.text import READ_BYTES

BAR = {'leave': False, 'delay': 2, 'disable': None}


class LanguageModel:
    """stride: tokens by which the window moves over a long text. batch_size: windows scored at once.
    task: what the bars call what is being done."""

    task = 'evaluation'

    def __init__(self, hparams: HParams, params: dict, encoder: Encoder, stride: int, batch_size: int) -> None:
        self.hparams, self.params, self.encoder = hparams, params, encoder
        self.stride, self.batch_size = stride, batch_size
        self.start = [encoder.end_of_text]

    @functools.cached_property
    def generator(self) -> Engine:
        from gpt2 import sample

        return sample.Generator(self.hparams, self.params)

    def score_rows(self, rows: Iterable[Row], excluded: Sequence[int] = ()) -> Iterator[tuple]:
        """Yield (log_probabilities, ranks, likelier) of each of rows, in order; see scoring.make_score."""
        from gpt2.scoring import log_probabilities as scoring

        score = scoring.make_score(self.hparams, self.params, excluded)
        for batch in batches(rows, self.batch_size * self.hparams.n_ctx):
            yield from score(batch)

    def score_texts(self, texts: Sequence[str], what: str) -> tuple[float, int]:
        """(log-probability in nats, tokens) of a list of texts in all, each after the end-of-text token."""
        measure, total, tokens = Measure(), 0.0, 0
        streams = (itertools.chain(self.start, encode_stream(self.encoder, pieces(text), measure)) for text in texts)
        rows = (row for ids in streams for row in windows(ids, self.hparams.n_ctx, self.stride))
        size = sum(len(utf8(text)) for text in texts)
        with tqdm(desc=f'{self.task}: {what}', total=size, unit='B', unit_scale=True, **BAR) as progress:
            for log_probabilities, _, _ in self.score_rows(rows):
                total += log_probabilities.sum(dtype='float64').item()
                tokens += len(log_probabilities)
                progress.update(measure.bytes - progress.n)
        return total, tokens

    def progress(self, items: Sequence) -> Iterable:
        """Iterate over a list beneath a bar, which names the task."""
        return tqdm(items, self.task, unit='example', **BAR)

    def room(self, length: int) -> int:
        """How many ids a prompt may have where `length` tokens are drawn after it. Raises UsageError if hardly any."""
        if self.hparams.n_ctx < 2 * length:
            raise UsageError(f'n_ctx {self.hparams.n_ctx} is too small for a task that draws {length} tokens')
        return self.hparams.n_ctx + 1 - length

    def continue_ids(self, ids: Sequence[int], length: int, stop: Sequence[str] = (), top_k: int = 0) -> str:
        """Text of up to length tokens after ids, until one of the texts stop or the end-of-text token: the
        likeliest token each time or, with a top_k, drawn from so many with seed 0."""
        drawn = self.generator.generate(
            [ids], length, numbers=[1], seed=0, temperature=1 if top_k else 0, top_k=top_k
        )
        completion = Completion(self.encoder, 1, stop, stop_at_end=True, length=length)
        with contextlib.closing(drawn):
            for [token] in drawn:
                completion.add(token)
                if completion.finish_reason:
                    break
        return completion.text


def pieces(text: str) -> Iterator[str]:
    """Parts of a text, small enough that what is read is soon scored."""
    return (text[start : start + READ_BYTES] for start in range(0, len(text), READ_BYTES))
