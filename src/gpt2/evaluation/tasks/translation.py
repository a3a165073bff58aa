"""Translation by example: Radford et al. 2019, section 3.7, WMT-14 English and French.

Published for the 1542M model: BLEU 5 into French and 11.5 into English, from prompts of example pairs
"english sentence = french sentence" and greedy decoding, the first generated sentence being the translation.
How many pairs, and which, the paper does not say.
"""

from collections.abc import Iterable, Iterator, Sequence

from gpt2.evaluation.language_model import LanguageModel
from gpt2.evaluation.tasks import published
from gpt2.evaluation.tasks.summarisation import sentences
from gpt2.evaluation.tasks.task import READING, Metrics, Source, Task, malformed, read_lines

Pair = tuple[str, str]  # a sentence, its translation
EXAMPLES, LENGTH = 5, 100
NTREX = 'https://raw.githubusercontent.com/MicrosoftTranslator/NTREX/main/NTREX-128'


def read(source_path: str, target_path: str) -> list[Pair]:
    """List of (sentence, translation)."""
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets) or len(sources) <= EXAMPLES:
        expected = f'expected as many as the {len(sources)} of {source_path}, and more than {EXAMPLES}'
        raise malformed(target_path, len(targets), f'the file has {len(targets)} lines, {expected}')
    return list(zip(sources, targets))


def translations(model: LanguageModel, examples: Iterable[Pair], texts: Iterable[str]) -> Iterator[str]:
    """Yield the translation of each of texts."""
    shown = ''.join(f'{source} = {target}\n' for source, target in examples)
    prompts = (model.encoder.encode(f'{shown}{text} =')[-model.room(LENGTH) :] for text in texts)
    for continuation in model.continue_all(prompts, LENGTH, stop=['\n']):
        yield next(iter(sentences(continuation)), '')


def metrics(model: LanguageModel, pairs: Sequence[Pair]) -> Metrics:
    import sacrebleu

    examples, pairs = pairs[:EXAMPLES], pairs[EXAMPLES:]
    found = list(translations(model, examples, (source for source, _ in model.progress(pairs))))
    bleu = sacrebleu.corpus_bleu(found, [[target for _, target in pairs]])
    return {'bleu': bleu.score, 'sentences': len(pairs)}


RECIPE = (
    f'prompt: the first {EXAMPLES} pairs of the file, a line "sentence = translation" each, and "sentence =" for '
    f'each of the others; greedy, up to {LENGTH} tokens or the end of the line; the first sentence of that is the '
    f'translation; of a prompt too long for the window the end is kept; {READING}; BLEU of sacrebleu with its defaults'
)


def task(name: str, title: str, files: dict[str, Source], figures: dict[str, float] | None) -> Task:
    return Task(
        name, title, files, RECIPE, read, metrics, {'bleu': figures} if figures else {},
        requires={'sacrebleu': 'sacrebleu'}, unit='sentences', item='sentences', shown=EXAMPLES, draws=LENGTH,
    )  # fmt: skip


def both_ways(
    prefix: str, title: str, english: str, english_source: Source, french: str, french_source: Source,
    into_french: dict[str, float] | None = None, into_english: dict[str, float] | None = None,
) -> list[Task]:  # fmt: skip
    files = {english: english_source, french: french_source}
    return [
        task(f'{prefix}-en-fr', f'{title}, English to French', files, into_french),
        task(f'{prefix}-fr-en', f'{title}, French to English', dict(reversed(files.items())), into_english),
    ]


TASKS = [
    *both_ways(
        'wmt14', 'WMT-14',
        'newstest2014.en', Source(note='written by `sacrebleu -t wmt14/full -l en-fr --echo src`'),
        'newstest2014.fr', Source(note='written by `sacrebleu -t wmt14/full -l en-fr --echo ref`'),
        published.ENGLISH_FRENCH_BLEU, published.FRENCH_ENGLISH_BLEU,
    ),
    *both_ways(
        'ntrex', 'NTREX',
        'ntrex.newstest2019.en.txt', Source(f'{NTREX}/newstest2019-src.eng.txt'),
        'ntrex.newstest2019.fr.txt', Source(f'{NTREX}/newstest2019-ref.fra.txt'),
    ),
]  # fmt: skip
