"""Results of an evaluation as a Markdown table and as a chart, beside the paper's figures."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from gpt2.evaluation.tasks import TASKS
from gpt2.evaluation.tasks.task import Task
from gpt2.hparams import RELEASED_HPARAMS, HParams, parameter_count

NAMES = {
    'perplexity': 'perplexity a word',
    'perplexity_tokenised': 'perplexity a word, text left tokenised',
    'perplexity_per_bpe_token': 'perplexity a token of the model',
    'perplexity_per_bpe_token_tokenised': 'perplexity a token of the model, text left tokenised',
    'lines_left_tokenised': 'lines that could not be detokenised',
    'perplexity_word': 'perplexity of the last word',
    'perplexity_last_token': 'perplexity of its last token',
    'accuracy_word': 'accuracy, whole word',
    'accuracy_word_stop_filtered': 'accuracy, whole word, no stop words',
    'accuracy_word_stop_filtered_without_pieces': 'accuracy, whole word, no tokens that spell stop words',
    'accuracy_last_token': 'accuracy, last token',
    'accuracy_last_token_stop_filtered': 'accuracy, last token, no stop words',
    'accuracy_partial': 'accuracy, partial scoring',
    'accuracy_full': 'accuracy, full scoring',
    'bits_per_byte': 'bits a byte',
    'bits_per_character': 'bits a character',
    'exact_match': 'exact match',
    'f1': 'F1',
    'bleu': 'BLEU',
    'rouge1': 'ROUGE-1',
    'rouge2': 'ROUGE-2',
    'rougeL': 'ROUGE-L',
    'rougeLsum': 'ROUGE-L by sentence',
}


class Row(NamedTuple):
    """A figure: of which task, by what name, over how much, and the paper's for a model of that size or None."""

    task: Task
    metric: str
    value: float | int | None
    over: str
    published: float | None


def released_size(hparams: HParams) -> str | None:
    """The released model that has this shape, or None."""
    return next((size for size, released in RELEASED_HPARAMS.items() if released == hparams), None)


def rows(results: dict[str, Any]) -> Iterator[Row]:
    """Yield the Row of each figure; what the figures are over is none itself."""
    size = released_size(HParams(**results['model']['hparams']))
    for name, entry in results['tasks'].items():
        task = TASKS[name]
        for metric, value in entry['metrics'].items():
            if metric != task.unit:
                yield Row(task, metric, value, extent(task, entry), task.published.get(metric, {}).get(size))


def extent(task: Task, entry: dict[str, Any]) -> str:
    """How much a task's figures are over, in words; a limit is named first."""
    items, count = entry.get('items'), entry['metrics'].get(task.unit)
    limited = first(items, task.item) if entry.get('limit') else None
    whole = counted(items, task.item) if count is None else counted(count, task.unit)
    return whole if limited is None else limited if task.item == task.unit else f'{limited}: {whole}'


def counted(count: int | None, units: str) -> str:
    """A count with its unit, which is given in the plural."""
    return '–' if count is None else f'{count:,} {units.removesuffix("s") if count == 1 else units}'


def first(count: int | None, units: str) -> str:
    return f'first {units.removesuffix("s")}' if count == 1 else f'first {counted(count, units)}'


def figure_text(metric: str, value: float | int | None) -> str:
    """A figure as it is printed: two decimals, a share with its sign, a count whole."""
    if value is None:
        return '–'
    if isinstance(value, int):
        return f'{value:,}'
    return f'{value:,.2f}{sign(metric)}'


def published_text(metric: str, value: float | None) -> str:
    """A figure of the paper with as many digits as it has there."""
    return '–' if value is None else f'{value}{sign(metric)}'


def sign(metric: str) -> str:
    return ' %' if metric.startswith(('accuracy', 'exact_match')) else ''


def table(results: dict[str, Any]) -> str:
    """A Markdown table of all figures. The paper's have a column where it has such a model."""
    size = released_size(HParams(**results['model']['hparams']))
    heads = ['Task', 'Metric', results['model']['name'], 'Over', *([f'Paper, {size}'] if size else [])]
    lines = [heads, ['---', '---', '---:', '---', *(['---:'] if size else [])]]
    for task, metric, value, over, published in rows(results):
        cells = [task.title, NAMES.get(metric, metric), figure_text(metric, value), over]
        lines.append(cells + ([published_text(metric, published)] if size else []))
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def shape_text(hparams: HParams) -> str:
    """Hyperparameters in words."""
    return (
        f'{parameter_count(hparams):,} parameters: {counted(hparams.n_layer, "layers")} of width {hparams.n_embd:,} '
        f'with {counted(hparams.n_head, "heads")}, a vocabulary of {counted(hparams.n_vocab, "tokens")}, a window of '
        f'{counted(hparams.n_ctx, "tokens")}'
    )


def title(results: dict[str, Any]) -> str:
    """What the report is of, and the limit it was made with."""
    limit = results.get('limit')
    quick = f', a quick look at the {first(limit, "items")} of each task' if limit else ''
    model = results['model']
    name = ', '.join([model['name'], *([model['precision']] if 'precision' in model else [])])
    return f'{name}: zero-shot evaluation{quick}'


def report(results: dict[str, Any]) -> str:
    """The table and below it how each figure came about, as Markdown."""
    model = results['model']
    parts = [f'# {title(results)}', table(results)]
    parts.append(
        'The paper is Radford et al. 2019; its perplexities are a word, its accuracies in per cent. The model has '
        f'{shape_text(HParams(**model["hparams"]))}; the SHA-256 of its index is {model["index_sha256"]}.'
    )
    for name, entry in results['tasks'].items():
        files = ', '.join(f'{file} (SHA-256 {digest})' for file, digest in entry['files'].items())
        versions = ', '.join(f'{package} {version}' for package, version in entry['versions'].items())
        parts.append(
            f'## {TASKS[name].title}\n\nTask `{name}`, over the {extent(TASKS[name], entry)}.\n\n{entry["recipe"]}.\n\n'
            f'Files: {files}. Stride: {entry["stride"]}. '
            f'Finished {entry["finished"]} after {entry["seconds"]:.0f} s. Versions: {versions}.'
        )
    return '\n\n'.join(parts) + '\n'


def draw(results: dict[str, Any]) -> Any:
    """A matplotlib figure, a panel for each metric that has published figures: size against published and measured.

    None where there is nothing to draw. Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure

    panels: list[Any] = [row for row in rows(results) if row.metric in row.task.published and row.value is not None]
    if not panels:
        return None
    parameters = parameter_count(HParams(**results['model']['hparams']))
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4 * columns, 3 * lines), layout='constrained')
    for index, row in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, index)
        published = row.task.published[row.metric]
        sizes = [parameter_count(RELEASED_HPARAMS[size]) for size in published]
        axes.plot(sizes, list(published.values()), 'o-', label='paper')
        axes.plot([parameters], [row.value], 'x', label=f'{results["model"]["name"]}, {row.over}')
        axes.set(title=f'{row.task.title}\n{NAMES.get(row.metric, row.metric)}', xscale='log', xlabel='parameters')
        if row.metric.startswith('perplexity'):
            axes.set(yscale='log')
        axes.legend(fontsize='small')
    return figure
