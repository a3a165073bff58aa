"""What the stages did, as Markdown and as a chart, and the stub of a data card."""

import os
import re
from collections.abc import Sequence
from typing import Any

from gpt2 import token_files
from gpt2.preparation.stages import Plan, chain, counts, is_done, stale
from gpt2.preparation.tokens import HELD_OUT, TRAINED_ON

LISTED = 20  # domains
MARKS = re.compile(r'[\\`*_{}\[\]<>#|~&$!]')  # that may mean something in Markdown or HTML
CARD = """\
# Data card

What is known is filled in; the rest is for whoever publishes the data, or a model that is trained on it. The questions
are those of Gebru et al. 2021, Datasheets for datasets, in short.

## What it is

{what}

## Where it is from

{source}

## How it was made

{made}

The counts of each stage are in [report.md](report.md).

## What is in it that should not be

Unknown: the pages were written by people, about people. Nobody has looked for names, addresses, slurs or falsehoods,
and none were taken out.

## Who may use it, and for what

Unknown: each page is its author's. Say under which law and licence the texts were taken, and how an author can have one
taken out.

## Who made it, when, and whom to ask

{contact}
"""


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """A Markdown table; its first so many columns are words, the others numbers."""
    marks = ['---'] * left + ['---:'] * (len(heads) - left)
    cells = [[f'{cell:,}' if isinstance(cell, int) else cell for cell in row] for row in rows]
    return '\n'.join(f'| {" | ".join(row)} |' for row in [list(heads), marks, *cells])


def plain(text: str) -> str:
    """Text that is not ours, such as a page's domain, as Markdown that shows it."""
    return MARKS.sub(r'\\\g<0>', ' '.join(text.split()))


def gathered(plan: Plan) -> dict[str, dict[str, Any]]:
    """The counts of the stages that are done, in their order, without those of an earlier run."""
    old = stale(plan)
    return {stage: counts(plan, stage) for stage in chain(plan) if is_done(plan, stage) and stage not in old}


def report(plan: Plan, found: dict[str, dict[str, Any]]) -> str:
    parts = ['# What was prepared', stage_table(found), skipped_table(found)]
    texts = [stage for stage in found if stage not in ('links', 'fetch', 'tokens')]
    if texts:
        survey = found[texts[-1]]['survey']
        parts += [f'Domains and lengths are of what {texts[-1]} let through.', domain_table(survey),
                  length_table(survey)]  # fmt: skip
    if languages := languages_of(found):
        rows = sorted(languages.items(), key=lambda pair: (-pair[1], pair[0]))
        parts += ['## Languages', table(('Language', 'Documents'), rows)]
    if 'contamination' in found:
        listed = found['contamination']['blocks'][0].get('contamination', {}).get('listed', 0)
        parts += ['## Overlap', f'{listed:,} documents share 13-grams with the evaluation sets of `--against`; they '
                  'are listed in `contamination/work/listed`. `overlap.py` gives the table of the paper.']  # fmt: skip
    if 'tokens' in found:
        parts += ['## Tokens', token_table(plan)]
    return '\n\n'.join(parts) + '\n'


def stage_table(found: dict[str, dict[str, Any]]) -> str:
    rows = [
        (stage, each['in'], each['out'], each['in'] - each['out'], each['survey']['bytes'] or '–')
        for stage, each in found.items()
    ]
    return table(('Stage', 'Documents in', 'Out', 'Skipped', 'Bytes out'), rows)


def skipped_table(found: dict[str, dict[str, Any]]) -> str:
    rows = [
        (stage, plain(reason), count)
        for stage, each in found.items()
        for reason, count in sorted(each['skipped'].items(), key=lambda pair: (-pair[1], pair[0]))
    ]
    return '## What was skipped, and why\n\n' + table(('Stage', 'Reason', 'Documents'), rows, left=2)


def domain_table(survey: dict[str, Any]) -> str:
    rows = sorted(survey['domains'].items(), key=lambda pair: (-pair[1], pair[0]))[:LISTED]
    named = [(plain(name or '(a file)'), count) for name, count in rows]
    return '## Domains\n\n' + table(('Domain', 'Documents'), named)


def length_table(survey: dict[str, Any]) -> str:
    rows = [(f'below {2**bits:,}', count) for bits, count in lengths_of(survey)]
    return '## Lengths\n\n' + table(('Bytes', 'Documents'), rows)


def lengths_of(survey: dict[str, Any]) -> list[tuple[int, int]]:
    return sorted((int(bits), count) for bits, count in survey['lengths'].items())


def languages_of(found: dict[str, dict[str, Any]]) -> dict[str, int]:
    """{code: documents} as the filter saw them."""
    seen = found.get('filter', {'blocks': [{}]})['blocks'][0].get('language', {})
    return {name.removeprefix('language_'): count for name, count in seen.items() if name.startswith('language_')}


def token_table(plan: Plan) -> str:
    rows = []
    for name in (TRAINED_ON, HELD_OUT):
        if tokens := token_files.read(plan.folder('tokens', name)):
            rows.append((f'`tokens/{name}`', len(tokens.ends), len(tokens.ids)))
    return table(('Token file', 'Documents', 'Tokens'), rows)


def draw(found: dict[str, dict[str, Any]]) -> Any:
    """A matplotlib figure: documents at each stage, domains, lengths. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout='constrained')
    stages, domains, lengths = figure.subplots(1, 3)
    first = next(iter(found.values()))['in'] if found else 0
    names, sizes = ['in', *found], [first, *(each['out'] for each in found.values())]
    stages.bar(names, sizes)
    stages.set(title='documents after each stage')
    stages.tick_params(axis='x', rotation=45)
    texts = [stage for stage in found if stage != 'tokens']
    survey = found[texts[-1]]['survey'] if texts else {'domains': {}, 'lengths': {}}
    top = sorted(survey['domains'].items(), key=lambda pair: (-pair[1], pair[0]))[:LISTED][::-1]
    domains.barh(range(len(top)), [count for _, count in top])
    domains.set_yticks(range(len(top)), [name or '(a file)' for name, _ in top], parse_math=False)
    domains.set(title='domains')
    domains.tick_params(axis='y', labelsize='small')
    sizes_of = lengths_of(survey)
    lengths.bar([f'$2^{{{bits}}}$' for bits, _ in sizes_of], [count for _, count in sizes_of])
    lengths.set(title='documents of fewer bytes')
    return figure


def card(plan: Plan, found: dict[str, dict[str, Any]]) -> str:
    """The stub of a data card."""
    tokens = token_files.read(plan.folder('tokens', TRAINED_ON))
    what = 'Text of web pages.' if tokens is None else (
        f'Text of web pages: {len(tokens.ends):,} documents, {len(tokens.ids):,} tokens to train on.'
    )  # fmt: skip
    if plan.submissions:
        source = f'Pages that links on Reddit lead to, of submissions with a score of {plan.min_score} or more.'
    else:
        source = 'Pages that were there already, in ' + ('WARC files.' if plan.warc else 'a folder.')
    stages = ', '.join(f'{stage} ({each["out"]:,} left)' for stage, each in found.items())
    made = f'By the stages {stages}. The flags are in `{os.path.basename(plan.output)}/flags.json`.'
    return CARD.format(what=what, source=source, made=made, contact=plan.agent or 'Unknown.')
