"""Results of an evaluation as a Markdown table and as a chart, beside the paper's figures."""

import math

from gpt2.evaluation.tasks import TASKS
from gpt2.hparams import RELEASED_HPARAMS, HParams, parameter_count


def released_size(hparams):
    """The released model that has this shape, or None."""
    return next((size for size, released in RELEASED_HPARAMS.items() if released == hparams), None)


def rows(results):
    """Yield (task, metric, value, the paper's figure for that size or None)."""
    size = released_size(HParams(**results['model']['hparams']))
    for name, entry in results['tasks'].items():
        for metric, value in entry['metrics'].items():
            yield name, metric, value, TASKS[name].published.get(metric, {}).get(size)


def table(results):
    """A Markdown table of all metrics."""
    size = released_size(HParams(**results['model']['hparams']))
    paper = f'paper, {size}' if size else 'paper'
    lines = [f'| task | metric | {results["model"]["name"]} | {paper} |', '|---|---|---|---|']
    for name, metric, value, figure in rows(results):
        shown = f'{value:.4g}' if isinstance(value, float) else value
        lines.append(f'| {name} | {metric} | {shown} | {"–" if figure is None else figure} |')
    return '\n'.join(lines)


def report(results):
    """The table and below it how each figure came about, as Markdown."""
    model = results['model']
    parts = [f'# {model["name"]}: zero-shot evaluation', table(results)]
    identity = f'{model["hparams"]}, SHA-256 of its index {model["index_sha256"]}'
    parts.append(f'The paper is Radford et al. 2019. The model: {identity}.')
    for name, entry in results['tasks'].items():
        files = ', '.join(f'{file} (SHA-256 {digest})' for file, digest in entry['files'].items())
        versions = ', '.join(f'{package} {version}' for package, version in entry['versions'].items())
        parts.append(
            f'## {name}\n\n{entry["recipe"]}.\n\nFiles: {files}. Stride: {entry["stride"]}. '
            f'Finished {entry["finished"]} after {entry["seconds"]:.0f} s. Versions: {versions}.'
        )
    return '\n\n'.join(parts) + '\n'


def draw(results):
    """A matplotlib figure, a panel for each metric that has published figures: size against published and measured.

    None where there is nothing to draw. Raises ImportError without matplotlib.
    """
    from matplotlib.figure import Figure

    panels = [(name, metric, value) for name, metric, value, _ in rows(results) if metric in TASKS[name].published]
    if not panels:
        return None
    parameters = parameter_count(HParams(**results['model']['hparams']))
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4 * columns, 3 * lines), layout='constrained')
    for index, (name, metric, value) in enumerate(panels, start=1):
        axes = figure.add_subplot(lines, columns, index)
        published = TASKS[name].published[metric]
        sizes = [parameter_count(RELEASED_HPARAMS[size]) for size in published]
        axes.plot(sizes, list(published.values()), 'o-', label='paper')
        axes.plot([parameters], [value], 'x', label=results['model']['name'])
        axes.set(title=f'{name}\n{metric}', xscale='log', xlabel='parameters')
        if metric.startswith('perplexity'):
            axes.set(yscale='log')
        axes.legend()
    return figure
