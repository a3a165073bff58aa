"""A loaded model as evaluation tasks use it: it scores rows and texts, and continues token ids."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from gpt2.completion import Completion, complete
from gpt2.encoder import Encoder, utf8
from gpt2.engine import Engine
from gpt2.errors import UsageError
from gpt2.sampling import Sampling
from gpt2.scoring.fastest import fastest_score
from gpt2.scoring.windows import Row, batches, windows
from gpt2.system.text import READ_BYTES
from gpt2.text_stream import Measure, encode_stream

BAR = {'leave': False, 'delay': 2, 'disable': None}
DRAWN_TOGETHER = 8  # prompts that are continued at once


class LanguageModel:
    """stride: tokens by which the window moves over a long text. batch_size: windows scored at once.
    task: what the bars call what is being done."""

    task = 'evaluation'

    def __init__(self, engine: Engine, encoder: Encoder, stride: int, batch_size: int) -> None:
        self.engine, self.hparams, self.encoder = engine, engine.hparams, encoder
        self.stride, self.batch_size = stride, batch_size
        self.start = [encoder.end_of_text]

    def score_rows(self, rows: Iterable[Row], excluded: Sequence[int] = ()) -> Iterator[tuple]:
        """Yield (log_probabilities, ranks, likelier) of each of rows, in order; see log_probabilities.make_score."""
        score = fastest_score(self.engine, excluded)
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

    def continue_all(
        self, prompts: Iterable[Sequence[int]], length: int, stop: Sequence[str] = (), top_k: int = 0
    ) -> Iterator[str]:
        """Yield the text of up to length tokens after each of prompts, token ids, in order, until one of the texts stop
        or the end-of-text token: the likeliest token each time or, with a top_k, drawn from so many with seed 0."""
        sampling = Sampling(temperature=1 if top_k else 0, top_k=top_k)
        waiting = iter(prompts)
        while batch := list(itertools.islice(waiting, DRAWN_TOGETHER)):
            rows = self.engine.start(batch, numbers=[1] * len(batch), seed=0, sampling=sampling)
            completions = [Completion(self.encoder, 1, stop, stop_at_end=True, length=length) for _ in batch]
            for _ in complete(rows, completions):
                pass
            yield from (completion.text for completion in completions)


def pieces(text: str) -> Iterator[str]:
    """Parts of a text, small enough that what is read is soon scored."""
    return (text[start : start + READ_BYTES] for start in range(0, len(text), READ_BYTES))
