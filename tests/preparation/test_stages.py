"""All stages in a row, on a few dozen pages."""

import dataclasses
import gzip
import json
import os
import re
import resource
import shutil

import numpy as np
import pytest

pytest.importorskip('datatrove')
from datatrove.data import Document
from example_models import BUNDLED
from example_pages import pages, write_submissions, write_warc

from gpt2 import token_files
from gpt2.encoder import read_encoder
from gpt2.errors import Error, UsageError
from gpt2.preparation import hosts, network, stages
from gpt2.preparation.executors import Engine, StepError
from gpt2.preparation.report import card, draw, gathered, report
from gpt2.preparation.stages import Plan, chain, counts
from gpt2.token_files import vocabulary_digest

PAGES = list(pages(48))
KINDS = {page.address: page.kind for page in PAGES}


@pytest.fixture(scope='module')
def crawl(tmp_path_factory):
    folder = tmp_path_factory.mktemp('crawl')
    for name, part in (('a', PAGES[:24]), ('b', PAGES[24:])):
        write_warc(folder / f'{name}.warc.gz', part)
        write_submissions(folder / f'{name}.jsonl', [*part, *part])  # each link twice
    return folder


@pytest.fixture(scope='module')
def plan(crawl, tmp_path_factory):
    return Plan(
        str(tmp_path_factory.mktemp('out') / 'all'), tasks=2, submissions=(f'{crawl}/*.jsonl',), before=2e9,
        warc=(f'{crawl}/*.warc.gz',), vocabulary=str(BUNDLED), held_out=0.2,
        vocabulary_digest=vocabulary_digest(read_encoder(str(BUNDLED))),
    )  # fmt: skip


@pytest.fixture(scope='module')
def done(plan):
    run(plan, chain(plan), Engine())
    return plan


def run(plan, names, engine):
    stages.begin(plan, names)
    stages.run(plan, names, engine)


def documents(plan, stage):
    found = {}
    for path in sorted(plan.folder(stage, 'documents', name) for name in ('00000.jsonl.gz', '00001.jsonl.gz')):
        with gzip.open(path, 'rt', encoding='utf-8') as file:
            found |= {each['id']: each['text'] for each in map(json.loads, file)}
    return found


def test_every_document_that_comes_in_comes_out_or_has_its_reason(done):
    found = gathered(done)
    assert list(found) == ['links', 'fetch', 'text', 'filter', 'duplicates', 'tokens']
    assert found['links']['in'] == 96
    assert found['links']['skipped'] == {'Wikipedia': 4, 'exact duplicate': 46}
    assert found['fetch']['skipped'] == {'no link leads there': 2}
    before = 48
    for stage, each in list(found.items())[1:]:
        assert each['in'] == before, stage
        before = each['out']
    assert found['filter']['skipped']['too short'] == 2
    assert found['filter']['skipped']['not English'] >= 4
    assert found['duplicates']['skipped']['exact duplicate'] == 2


def test_text_is_kept_and_boilerplate_is_gone(done):
    texts = documents(done, 'text')
    assert set(texts) == {page.address for page in PAGES if page.kind != 'wikipedia'}
    for page in PAGES:
        text = ' '.join(texts.get(page.address, '').split())
        if text:
            assert all(paragraph in text for paragraph in page.text), page.kind
            assert not any(phrase in text for phrase in page.boilerplate), page.kind


def test_other_languages_are_out(done):
    assert not {KINDS[address] for address in documents(done, 'filter')} & {'foreign', 'short', 'wikipedia'}


def test_one_of_each_pair_of_near_duplicates_is_left(done):
    before, left = documents(done, 'filter'), documents(done, 'duplicates')
    by_number = {page.number: page.address for page in PAGES}
    for page in PAGES:
        pair = {page.address, by_number.get(page.original)}
        if page.original is not None and pair <= set(before) and (page.similarity > 0.75 or page.similarity < 0.25):
            assert len(pair & set(left)) == (1 if page.similarity > 0.75 else 2), page
        if page.kind == 'broken':
            assert page.address in left


def test_tokens_are_those_of_the_documents_shuffled(done):
    encoder = read_encoder(str(BUNDLED))
    expected = {(*encoder.encode(text), encoder.end_of_text) for text in documents(done, 'duplicates').values()}
    found, order = set(), []
    for name in ('training', 'held-out'):
        tokens = token_files.read(done.folder('tokens', name))
        parts = [tuple(part.tolist()) for part in np.split(np.asarray(tokens.ids), tokens.ends[:-1])]
        assert not found & set(parts)
        assert len(parts) > 1
        found |= set(parts)
        order += parts
    assert found == expected
    assert len(order) == len(expected)
    assert token_files.read_about(done.folder('tokens', 'training'))['vocabulary'] == vocabulary_digest(encoder)


def same(one, other):
    """Whether two plans have led to the same."""
    for stage in chain(one):
        if stage != 'tokens':
            assert documents(one, stage) == documents(other, stage), stage
        first, second = counts(one, stage), counts(other, stage)
        assert (first['in'], first['out'], first['skipped']) == (second['in'], second['out'], second['skipped'])
    for name in ('training', 'held-out'):
        first, second = (token_files.read(each.folder('tokens', name)) for each in (one, other))
        assert np.array_equal(first.ids, second.ids)
        assert first.digest == second.digest


def test_a_disk_that_is_full_and_then_is_not(done, tmp_path):
    plan = dataclasses.replace(done, output=str(tmp_path / 'out'))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    failures = 0
    for limit in (3_000, 12_000, 30_000, hard):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            run(plan, chain(plan), Engine())
        except Error as error:
            failures += 1
            assert 'too large' in str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert failures >= 2
    same(done, plan)


@pytest.mark.slow
def test_several_workers_give_the_same(done, tmp_path):
    plan = dataclasses.replace(done, output=str(tmp_path / 'out'))
    run(plan, chain(plan), Engine(workers=2))
    same(done, plan)


def test_a_stage_alone_needs_the_one_before(done, tmp_path):
    plan = dataclasses.replace(done, output=str(tmp_path / 'out'))
    with pytest.raises(UsageError, match='text needs what fetch lets through, which is not done; run fetch first'):
        run(plan, ['text'], Engine())
    run(plan, ['links'], Engine())
    assert documents(plan, 'links') == documents(done, 'links')
    assert list(gathered(plan)) == ['links']


def test_another_setting_is_refused_until_the_folder_is_removed(done, tmp_path):
    plan = dataclasses.replace(done, output=str(tmp_path / 'out'))
    run(plan, ['links'], Engine())
    other = dataclasses.replace(plan, min_score=6)
    with pytest.raises(UsageError, match='links was made with another min_score'):
        run(other, ['links'], Engine())
    run(plan, ['fetch'], Engine())
    with pytest.raises(UsageError, match='fetch was made with another stage before it'):
        run(other, ['fetch'], Engine())
    shutil.rmtree(plan.folder('links'))
    run(other, ['links'], Engine())
    assert counts(other, 'links')['skipped'] == {'score too low': 96}


def test_what_was_made_of_an_earlier_run_is_refused_and_not_reported(plan, tmp_path):
    plan = dataclasses.replace(plan, output=str(tmp_path / 'out'))
    run(plan, ['links', 'fetch', 'text'], Engine())
    shutil.rmtree(plan.folder('links'))
    folders = f'{plan.folder("fetch")}, {plan.folder("text")}'
    message = f'fetch is of another run of links than is there now; remove {folders} to make that again'
    for names in (chain(plan), ['links', 'fetch']):
        with pytest.raises(UsageError, match=re.escape(message)):
            run(plan, names, Engine())
    assert not os.path.exists(plan.folder('links'))  # nothing was begun
    run(plan, ['links'], Engine())
    for name in ('fetch', 'text', 'filter'):
        with pytest.raises(UsageError, match=re.escape(message)):
            run(plan, [name], Engine())
    assert list(gathered(plan)) == ['links']
    for stage in ('fetch', 'text'):
        shutil.rmtree(plan.folder(stage))
    run(plan, ['links', 'fetch'], Engine())
    assert list(gathered(plan)) == ['links', 'fetch']


@pytest.fixture
def warcs(tmp_path, plan):
    """A plan of four WARC files of five pages each."""
    for place, name in enumerate('bcde'):
        write_warc(tmp_path / f'{name}.warc.gz', PAGES[5 * place : 5 * place + 5])
    return dataclasses.replace(plan, output=str(tmp_path / 'out'), submissions=(), warc=(f'{tmp_path}/*.warc.gz',))


def test_files_that_came_later_are_refused_and_never_read_in_half(warcs, tmp_path):
    run(warcs, ['fetch'], Engine())
    before = documents(warcs, 'fetch')
    write_warc(tmp_path / 'a.warc.gz', PAGES[20:25])
    message = f'fetch was made with other files, as {tmp_path}/a.warc.gz shows'
    with pytest.raises(UsageError, match=re.escape(message)):
        run(warcs, ['fetch'], Engine())
    os.remove(warcs.folder('fetch', 'steps', 'fetch', 'completions', '00001'))
    with pytest.raises(UsageError, match=re.escape(message)):
        run(warcs, ['fetch'], Engine())
    [(step, logs)] = stages.steps_of(warcs, 'fetch')  # as on Slurm, where the step was given away already
    stages.executors.run_local(step, logs, Engine())
    assert documents(warcs, 'fetch') == before
    assert counts(warcs, 'fetch')['in'] == 20


def test_a_file_that_was_replaced_is_refused_and_one_that_is_gone_only_while_it_is_needed(warcs, tmp_path):
    run(warcs, ['fetch'], Engine())
    path = tmp_path / 'c.warc.gz'
    content = path.read_bytes()
    path.write_bytes(content + b'x')
    with pytest.raises(UsageError, match='made with other files'):
        run(warcs, ['fetch'], Engine())
    path.unlink()
    run(warcs, ['fetch', 'text'], Engine())
    os.remove(warcs.folder('fetch', 'steps', 'fetch', 'completions', '00001'))
    with pytest.raises(UsageError, match='made with other files'):
        run(warcs, ['fetch'], Engine())


@pytest.mark.parametrize(
    ('name', 'patterns'),
    [
        ('warc', ('/nowhere/*.gz',)), ('warc', ('{}/b.warc.gz', '{}/x.warc.gz')), ('html', ('{}',)),
        ('submissions', ('/nowhere.zst',)),
    ],
)  # fmt: skip
def test_a_pattern_that_names_no_file_is_refused(warcs, tmp_path, name, patterns):
    given = {'warc': (), name: tuple(each.format(tmp_path) for each in patterns)}
    plan = dataclasses.replace(warcs, **given)
    with pytest.raises(UsageError, match=re.escape(f'--{name} {given[name][-1]} names no file')):
        run(plan, chain(plan), Engine())
    assert not os.path.exists(plan.output)


def test_a_stage_that_has_done_nothing_may_be_begun_otherwise(warcs):
    stages.begin(warcs, ['fetch', 'text'])
    run(dataclasses.replace(warcs, max_bytes=10**6), ['fetch'], Engine())
    assert stages.stale(warcs) == []
    plan = dataclasses.replace(warcs, against=('0123',))
    for _ in range(2):  # the second time with what an interrupted command has left
        stages.begin(plan, chain(plan)[1:])
        os.makedirs(plan.folder('contamination', stages.WORK), exist_ok=True)


def test_an_outage_is_over_and_fetch_tries_again(plan, tmp_path, monkeypatch):
    up, asked = set(), []

    def get(address, limits, *_):
        asked.append(address)
        if network.urlsplit(address).hostname not in up:
            raise network.Refused('no such host')
        return network.Answer(200, 'OK', [('Content-Type', 'text/html')], b'<p>here')

    monkeypatch.setattr(hosts, 'get', get)
    plan = dataclasses.replace(plan, output=str(tmp_path / 'out'), warc=(), agent='me', pause=0.0)
    names = {network.urlsplit(page.address).hostname for page in PAGES}
    up.update(sorted(names)[::2])
    run(plan, ['links', 'fetch', 'text'], Engine())
    first = counts(plan, 'fetch')
    assert 0 < first['skipped']['no such host'] < first['in']
    up.update(names)
    asked.clear()
    run(plan, ['fetch'], Engine())
    assert (counts(plan, 'fetch'), asked) == (first, [])  # what is done stays
    with pytest.raises(UsageError, match='fetch was made with another allow_private'):
        run(dataclasses.replace(plan, allow_private=True), ['fetch'], Engine())
    again = dataclasses.replace(plan, try_again=True, allow_private=True)
    with pytest.raises(UsageError, match='text is of another run of fetch'):
        run(again, ['fetch', 'text'], Engine())
    assert asked == []
    run(again, ['fetch'], Engine())
    assert counts(plan, 'fetch')['skipped'] == {}
    pages_asked = [address for address in asked if not address.endswith('robots.txt')]
    assert len(pages_asked) == first['skipped']['no such host']
    assert stages.stale(plan) == ['text']


def test_nothing_is_left(done, tmp_path):
    plan = dataclasses.replace(done, output=str(tmp_path / 'out'), min_score=6)
    run(plan, chain(plan), Engine())
    assert [each['out'] for each in gathered(plan).values()] == [0] * 6
    assert token_files.read(plan.folder('tokens', 'training')).ids.size == 0
    assert '| tokens | 0 | 0 | 0 |' in report(plan, gathered(plan))


def test_the_report(done):
    text = report(done, gathered(done))
    assert '| links | 96 | 46 | 50 |' in text
    assert '| filter | too short | 2 |' in text
    assert '| de | ' in text
    assert '| `tokens/training` |' in text
    assert '| Domain | Documents |' in text
    panels = draw(gathered(done)).get_axes()
    titles = ['documents after each stage', 'domains', 'documents of fewer bytes']
    assert [panel.get_title() for panel in panels] == titles
    assert [bar.get_height() for bar in panels[0].patches][:3] == [96, 46, 46]


def test_names_of_hosts_are_shown_and_mean_nothing_else(done, tmp_path):
    name = 'a$\\foo$|b<img src=x>`x`**y**'
    survey = {'documents': 1, 'bytes': 9, 'lengths': {'4': 1}, 'domains': {name: 1}}
    found = {'text': {'in': 1, 'out': 1, 'skipped': {'a|<b>': 1}, 'survey': survey, 'blocks': []}}
    draw(found).savefig(tmp_path / 'chart.png')
    text = report(done, found)
    assert r'| a\$\\foo\$\|b\<img src=x\>\`x\`\*\*y\*\* | 1 |' in text
    assert r'| text | a\|\<b\> | 1 |' in text


def test_documents_of_just_so_many_tokens_are_kept():
    block = stages.Length(str(BUNDLED), 128)
    encoder, text = read_encoder(str(BUNDLED)), 'the'
    while len(encoder.encode(text)) < 128:
        shorter, text = text, f'{text} the'
    assert [block.filter(Document(each, 'a')) for each in (shorter, text)] == [(False, 'too short'), True]


def test_the_data_card(done):
    text = card(done, gathered(done))
    assert 'submissions with a score of 3 or more' in text
    assert 'duplicates (' in text
    assert f'{len(token_files.read(done.folder("tokens", "training")).ends):,} documents' in text


def test_a_block_that_fails_is_a_step_that_fails(done, tmp_path, monkeypatch):
    plan = dataclasses.replace(done, output=str(tmp_path / 'out'))
    monkeypatch.setattr(stages.Submissions, 'raw', lambda self, path: 1 / 0)
    with pytest.raises(StepError, match='2 of 2 tasks of select failed, task 0 since division by zero'):
        run(plan, ['links'], Engine())


def test_train_takes_the_token_files(done, tmp_path, monkeypatch, capsys):
    from gpt2.checkpoints import release
    from gpt2.commands.train import train_model

    monkeypatch.setattr(release, 'write_meta_graph', lambda path, _: open(path, 'w').close())  # it takes long
    training, held_out = (done.folder('tokens', name) for name in ('training', 'held-out'))
    train_model(
        training, held_out_data=[held_out], model_name='m', models_dir=str(tmp_path), n_ctx=8, n_embd=4, n_head=1,
        n_layer=1, steps=2, warmup=0, batch_size=2,
    )  # fmt: skip
    tokens = token_files.read(training)
    record = json.loads((tmp_path / 'm' / 'training.json').read_text())
    assert record['tokens'] == len(tokens.ids)
    assert not list((tmp_path / 'm').glob('tokens-*'))  # nothing was encoded again
    log = [json.loads(line) for line in (tmp_path / 'm' / 'training.jsonl').read_text().splitlines()]
    assert log[-1]['held_out_loss'] > 0
