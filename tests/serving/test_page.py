"""The page, in a browser: what it is for, its errors, and that everybody can use it.

Needs Debian's package chromium, or another Chromium in PATH, and playwright.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal

import pytest
from running import PATIENCE

from serving.conftest import started

playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed; make test installs it')
expect = playwright.expect
BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
if BROWSER is None:
    pytest.skip("no Chromium here; Debian's package chromium has it", allow_module_level=True)

PROMPT = 'Once upon a time'
MARKUP = '<img src=x onerror="document.title=1"><script>document.title=1</script>'
TABS = ('write', 'look', 'compare', 'story')
TIMEOUT = PATIENCE * 1000  # milliseconds
expect.set_options(timeout=TIMEOUT)


@pytest.fixture(scope='module')
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])  # which root cannot have
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser, server, fragment='', quiet=True, **options):
    """A page in a context of its own. At the end: it asked nobody else, and had nothing to say on the console."""
    context = browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    said, asked = [], []
    page.on('console', lambda message: said.append(message.text))
    page.on('pageerror', lambda error: said.append(str(error)))
    page.on('request', lambda request: asked.append(request.url))
    page.goto(f'{server.address}/{fragment}')
    try:
        yield page
    finally:
        context.close()
    assert all(url.startswith((server.address, 'blob:')) for url in asked)
    assert said == [] or not quiet


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


def press(page, name):
    page.get_by_role('button', name=name, exact=True).click()


def tab(page, name):
    page.get_by_role('tab', name=name).click()


def done(page):
    """Wait until nothing is being drawn."""
    expect(page.locator('[role=tabpanel]:visible > *')).to_have_attribute('aria-busy', 'false')


def seed_field(page):
    return page.get_by_label('seed', exact=True).locator('visible=true')


def keep_seed(page, seed):
    seed_field(page).fill(str(seed))


def prompts(page):
    """The bodies of the completions that a page will ask for."""
    asked = []
    page.on('request', lambda request: asked.append(request.post_data_json)
            if request.url.endswith('/v1/completions') else None)  # fmt: skip
    return asked


def drawn(server, prompt, seed, length=40, **settings):
    answer = server.completion(prompt, seed=seed, max_tokens=length, **{'top_k': 40, **settings})
    return answer['choices'][0]['text']


# Write


@pytest.fixture
def text(page):
    return page.get_by_label('Text', exact=True)


def test_a_text_goes_on(page, server, text):
    expect(text).to_be_visible()
    keep_seed(page, 5)
    text.fill(PROMPT)
    press(page, 'Continue')
    first = PROMPT + drawn(server, PROMPT, 5)
    expect(text).to_have_value(first)
    done(page)
    press(page, 'Try again')
    expect(text).not_to_have_value(first)
    done(page)
    seed = int(seed_field(page).input_value())
    second = PROMPT + drawn(server, PROMPT, seed)
    assert seed != 5
    expect(text).to_have_value(second)
    press(page, 'Undo')
    expect(text).to_have_value(PROMPT)
    press(page, 'Redo')
    expect(text).to_have_value(second)


def test_settings_are_those_of_the_flags(page, server, text):
    asked = prompts(page)
    values = {'temperature': '0.55', 'top_k': '7', 'top_p': '0.83', 'length': '6', 'seed': '9'}
    for name, value in values.items():
        page.get_by_role('spinbutton', name=name, exact=True).fill(value)
    text.fill('')
    press(page, 'Continue')
    done(page)
    expected = {'temperature': 0.55, 'top_k': 7, 'top_p': 0.83, 'max_tokens': 6, 'seed': 9, 'prompt': None}
    assert asked[0] | expected == asked[0]
    expect(text).to_have_value(drawn(server, None, 9, 6, temperature=0.55, top_k=7, top_p=0.83))
    slider = page.get_by_role('slider', name='temperature')
    slider.focus()
    slider.press('ArrowRight')
    assert page.get_by_role('spinbutton', name='temperature').input_value() == '0.6'
    page.get_by_role('spinbutton', name='top_p').fill('2')
    page.get_by_role('spinbutton', name='top_p').blur()
    assert page.get_by_role('spinbutton', name='top_p').input_value() == '0.83'


def test_a_piece_is_stopped(page, text):
    page.route('**/v1/completions', lambda route: None)  # and so there is no answer
    text.fill(PROMPT)
    with page.expect_event('requestfailed') as request:
        press(page, 'Continue')
        press(page, 'Stop')
    assert request.value.failure == 'net::ERR_ABORTED'
    expect(page.get_by_role('button', name='Continue')).to_be_visible()
    expect(text).to_be_editable()
    assert page.locator('#failure').inner_text() == ''


def test_tab_offers_three_continuations(page, server, text):
    keep_seed(page, 6)
    text.fill(PROMPT)
    text.press('Tab')
    options = page.get_by_role('option')
    answer = server.completion(PROMPT, seed=6, max_tokens=12, top_k=40, n=3)
    offered = [choice['text'] for choice in answer['choices']]
    expect(options).to_have_text([each.strip().replace('\n', ' ↵ ') for each in offered])
    done(page)
    expect(options.nth(0)).to_have_attribute('aria-selected', 'true')
    text.press('ArrowDown')
    assert text.get_attribute('aria-activedescendant') == options.nth(1).get_attribute('id')
    text.press('Enter')
    expect(text).to_have_value(PROMPT + offered[1])
    expect(options).to_have_count(0)
    expect(text).to_be_focused()
    text.press('Tab')
    expect(options).to_have_count(3)
    text.press('Escape')
    expect(options).to_have_count(0)
    text.press('Tab')
    expect(text).not_to_be_focused()


def test_a_link_has_the_state_in_it(browser, page, server, text):
    keep_seed(page, 8)
    page.get_by_role('spinbutton', name='temperature').fill('0.8')
    text.fill(f'{PROMPT} – ')
    press(page, 'Continue')
    done(page)
    whole = text.input_value()
    page.evaluate('void (navigator.clipboard.writeText = () => Promise.reject())')  # as where a page is not from https
    press(page, 'Copy link')
    expect(page.get_by_text('It holds the text')).to_have_count(2)  # to be seen, and to be heard
    link = page.get_by_label('Link').input_value()
    assert page.evaluate('location.hash') == ''
    sent = []
    with opened(browser, server, link.removeprefix(f'{server.address}/')) as other:
        other.on('request', lambda request: sent.append(request.url))
        again = other.get_by_label('Text', exact=True)
        expect(again).to_have_value(whole)
        press(other, 'Undo')
        expect(again).to_have_value(f'{PROMPT} – ')
        press(other, 'Continue')
        expect(again).to_have_value(whole)
    assert sent and not any('temperature' in url for url in sent)


def test_a_link_is_taken_once_and_the_text_is_kept(page, server, text):
    page.goto(f'{server.address}/#write?text=Linked&temperature=0.8&top_k=-3&model=gone')
    page.reload()
    expect(text).to_have_value('Linked')
    expect(page.get_by_role('spinbutton', name='temperature')).to_have_value('0.8')
    assert page.evaluate('location.hash') == '#write'
    text.press('Control+End')
    text.press_sequentially(' and more')
    tab(page, 'Look')
    page.go_back()
    expect(text).to_have_value('Linked and more')
    page.reload()
    expect(text).to_have_value('Linked and more')


def test_what_a_link_cannot_do_is_told(browser, server):
    with opened(browser, server, '#write?text=a&temperature=0.50&top_k=-3&model=gone&more=1') as page:
        said = page.locator('.write .note')
        expect(said).to_have_text('top_k=-3, model=gone, more=1 cannot be had here; what was set stays.')
        page.evaluate('location.hash = "#look?text=abc"')
        expect(page.get_by_role('alert')).to_contain_text('A link holds a text for Write alone')
        assert page.evaluate('location.hash') == '#look'


def test_typing_is_a_step_of_its_own(page, text):
    answer_with(page, ' piece')
    text.press_sequentially('One')
    press(page, 'Continue')
    expect(text).to_have_value('One piece')
    done(page)
    text.press_sequentially(' two')
    text.press('Backspace')
    steps = ['', 'One', 'One piece', 'One piece two', 'One piece tw']
    for value in steps[-2::-1]:
        text.press('Control+z')
        expect(text).to_have_value(value)
    text.press('Control+z')
    for value in steps[1:]:
        text.press('Control+Shift+Z')
        expect(text).to_have_value(value)
    for _ in range(2):
        text.press('ArrowLeft')
    text.press_sequentially('-')
    expect(text).to_have_value('One piece -tw')
    text.press('Control+z')
    text.press_sequentially('+')  # the caret is where the change was
    expect(text).to_have_value('One piece +tw')


def test_tab_in_mid_text_goes_on_there(page, text):
    answer_with(page, ' new')
    sent = tokenized(page)
    text.fill('One two')
    for _ in ' two':
        text.press('ArrowLeft')
    text.press('Tab')
    done(page)
    assert sent == ['One']
    text.press('Enter')
    expect(text).to_have_value('One new two')
    assert page.locator('.write .drawn').text_content() == ' new'
    expect(page.get_by_role('button', name='Try again')).to_be_disabled()
    text.press_sequentially('er')
    expect(text).to_have_value('One newer two')


def tokenized(page):
    """The texts that a page will have made tokens of."""
    sent = []
    page.on('request', lambda request: sent.append(request.post_data_json['text'])
            if request.url.endswith('/v1/tokenize') else None)  # fmt: skip
    return sent


@pytest.mark.parametrize('word', ['kings, ', '日本、', ' ' * 99 + 'a'])
def test_of_a_long_text_its_end_is_sent(page, server, text, word):
    asked, sent = prompts(page), tokenized(page)
    answer_with(page, ' new')
    whole = (word * 100_000)[:90_000]
    text.fill(whole)
    press(page, 'Continue')
    expect(text).to_have_value(f'{whole} new')
    done(page)
    ids = server.ask('/v1/tokenize', {'text': whole[-40_000:]})[1]['ids']
    assert asked[0]['prompt'] == ids[-(513 - 40) :]
    assert len(sent[-1]) < 80_000
    expect(page.locator('.write .note')).to_contain_text('The model reads the last 473 tokens')
    assert page.locator('.write .mirror').text_content() == ''
    press(page, 'Copy link')
    expect(page.locator('.write .note')).to_contain_text('not every browser takes more than 64,000')


# Look


def look(page, text):
    tab(page, 'Look')
    page.get_by_label('Text to look at').fill(text)
    press(page, 'Look')
    done(page)
    return page.locator('.token')


def test_every_token_has_its_colour(page, server):
    given = f'{PROMPT} the 日本 king\nwas xylophone.'
    tokens = look(page, given)
    _, answer, _ = server.ask('/v1/score', {'text': given, 'likeliest': 10})
    ranks = [token['rank'] for token in answer['tokens']]
    expect(tokens).to_have_count(len(ranks))
    shown = page.locator('.tokens').text_content().replace('↵', '').replace('·', '')
    assert shown == given
    bins = tokens.evaluate_all('tokens => tokens.map((token) => Number(token.dataset.bin))')
    limits = (-0.6931, -2.3026, -4.6052, -6.9078)
    assert bins == [sum(token['log_probability'] < limit for limit in limits) for token in answer['tokens']]
    page.get_by_text('Rank', exact=True).click()
    bins = tokens.evaluate_all('tokens => tokens.map((token) => Number(token.dataset.bin))')
    assert bins == [sum(rank > limit for limit in (1, 10, 100, 1000)) for rank in ranks]
    assert len(set(bins)) > 2
    assert 'perplexity' in page.locator('.look > .note').inner_text()


def test_the_text_goes_on_from_another_token(page, server):
    keep_seed(page, 3)
    tokens = look(page, f'{PROMPT} there was a king.')
    tokens.nth(4).hover()
    likeliest = page.get_by_role('group', name='Likeliest in place of')
    rows = likeliest.get_by_role('button')
    expect(rows).to_have_count(10)
    _, answer, _ = server.ask('/v1/score', {'text': f'{PROMPT} there was a king.', 'likeliest': 10})
    token = answer['tokens'][4]
    for row, other in zip(rows.all(), token['likeliest']):
        assert other['token'].strip() in row.inner_text()
        assert ' %' in row.inner_text()
    other = next(each for each in token['likeliest'] if each['id'] != token['id'] and each['token'].strip().isalpha())
    place = token['likeliest'].index(other)
    ids = [each['id'] for each in answer['tokens'][:4]] + [other['id']]
    rows.nth(place).click()
    done(page)
    expected = PROMPT + other['token'] + drawn(server, ids, 3)
    assert page.locator('.tokens').text_content().replace('↵', '') == expected
    press(page, 'Undo')
    assert page.locator('.tokens').text_content() == f'{PROMPT} there was a king.'
    press(page, 'Write on')
    expect(page.get_by_label('Text', exact=True)).to_have_value(f'{PROMPT} there was a king.')


def test_a_text_longer_than_the_window(page, server, offline):
    given = 'The king and the queen went to the sea. ' * 70
    tokens = look(page, given)
    expected = offline.score(given)
    expect(tokens).to_have_count(len(expected.tokens))
    assert len(expected.tokens) > 512
    page.get_by_text('Rank', exact=True).click()
    bins = tokens.evaluate_all('tokens => tokens.map((token) => Number(token.dataset.bin))')
    assert bins == [sum(token.rank > limit for limit in (1, 10, 100, 1000)) for token in expected.tokens]


# Inside


def test_a_text_is_looked_into_and_a_part_ablated(browser, looking):
    with opened(browser, looking, '#inside') as page:
        inside = page.locator('#panel-inside')
        box = page.get_by_label('Text to look into')
        expect(inside.locator('.grid')).to_be_visible()
        box.fill('The king and the')
        expect(inside.locator('.grid thead th')).to_have_text(['The', '·king', '·and', '·the'])
        answer = looking.ask('/v1/inside', {'text': 'The king and the', 'layer': 2, 'head': 3, 'neuron': 7})[1]
        shown = inside.locator('.next tbody tr')
        expect(shown.first.locator('th')).to_have_text(answer['next'][0]['token'].replace(' ', '·'))
        rows = inside.locator('.grid tbody tr')
        expect(rows).to_have_count(6)
        expect(rows.first.locator('th')).to_have_text('h5')  # the last layer is at the top
        for what, value in (('layer', '2'), ('head', '3'), ('neuron', '7')):
            page.get_by_label(what, exact=True).locator('visible=true').fill(value)
        expect(inside.locator('.attention li').last).to_contain_text('·the attends most to')
        expect(inside.locator('.neuron span').nth(1)).to_have_attribute('title', f'{answer["activations"][1]:.3f}')
        assert inside.locator('line').count() == sum(weight >= 0.02 for row in answer['pattern'] for weight in row)
        expect(inside.locator('.next thead th')).to_have_count(2)
        press(page, 'Ablate this head')
        expect(inside.locator('.next thead th')).to_have_text(['token', 'ablated', 'before'])
        page.get_by_role('button', name='Put h2.head.3 back').click()
        expect(inside.locator('.next thead th')).to_have_count(2)
        expect(inside.locator('.known h3')).to_have_text('Where it is largest, in a few chapters of Heidi')
        passages = [''.join(each['tokens']).replace('\n', '↵\n') for each in answer['passages']]
        assert inside.locator('.known p').all_inner_texts() == passages
        box.fill('')
        expect(inside.locator('.grid')).to_have_count(0)


def test_keys_alone_look_inside(browser, looking):
    with opened(browser, looking, '#inside') as page:
        keys, inside = page.keyboard, page.locator('#panel-inside')
        expect(inside.locator('.grid')).to_be_visible()
        page.get_by_role('tab', name='Inside').focus()
        keys.press('Tab')
        keys.press('Control+a')
        keys.type('The king')
        expect(inside.locator('.grid thead th')).to_have_text(['The', '·king'])
        for value in '237':  # layer, head and neuron
            keys.press('Tab')
            keys.type(value)
        keys.press('Tab')
        keys.press('Enter')
        expect(inside.locator('.next thead th')).to_have_text(['token', 'ablated', 'before'])
        keys.press('Tab')
        keys.press('Tab')
        expect(page.get_by_role('button', name='Put h2.head.3 back')).to_be_focused()
        keys.press('Enter')
        expect(inside.locator('.next thead th')).to_have_count(2)
        expect(page.get_by_role('button', name='Ablate this head')).to_be_focused()
        keys.press('Tab')
        keys.press('Tab')
        expect(page.get_by_role('region', name='Layers and tokens')).to_be_focused()
        keys.press('Tab')
        keys.press('Enter')
        expect(page.get_by_label('layer', exact=True).locator('visible=true')).to_have_value('5')
        done(page)
        expect(page.get_by_role('button', name='h5', exact=True)).to_be_focused()
        expect(page.get_by_role('button', name='h5', exact=True)).to_have_attribute('aria-pressed', 'true')


def test_another_model_is_looked_into_when_it_is_chosen(browser, server):
    guess = {'id': 0, 'token': 'a', 'probability': 1}
    answer = {'tokens': ['a'], 'n_layer': 1, 'n_head': 1, 'n_neuron': 1, 'lens': [[guess]], 'pattern': [[1]],
              'activations': [0], 'next': [guess], 'before': [guess], 'source': None, 'passages': [],
              'explanations': []}  # fmt: skip

    def fulfil(route):
        route.fulfill(json=answer | {'model': route.request.post_data_json['model']})

    with opened(browser, server) as page:
        page.route('**/v1/models', lambda route: route.fulfill(json={'data': [{'id': '7M'}, {'id': 'other'}]}))
        page.route('**/v1/inside', fulfil)
        page.reload()
        model = page.get_by_label('model', exact=True).locator('visible=true')
        model.select_option('other')
        for act, expected in [(lambda: tab(page, 'Inside'), 'other'), (lambda: model.select_option('7M'), '7M')]:
            with page.expect_request('**/v1/inside') as request:
                act()
            assert request.value.post_data_json['model'] == expected
            expect(page.locator('.inside .grid')).to_be_visible()
        done(page)
        asked = []
        page.on('request', lambda request: asked.append(request.url.rpartition('/')[2]))
        page.get_by_role('spinbutton', name='temperature').fill('0.5')
        page.get_by_role('spinbutton', name='temperature').blur()
        with page.expect_request('**/v1/inside'):
            page.get_by_label('Text to look into').fill('b')
        assert asked.count('inside') == 1  # beside it the server may be asked for its models


def test_axe_finds_nothing_inside(browser, looking):
    options = {'reduced_motion': 'reduce', 'viewport': {'width': 320, 'height': 256}}
    with opened(browser, looking, '#inside', **options) as page:
        expect(page.locator('.inside .grid')).to_be_visible()
        press(page, 'Ablate this neuron')
        expect(page.get_by_role('button', name='Put h0.mlp.0 back')).to_be_visible()
        done(page)
        axe_finds_nothing(page)
        assert page.evaluate('document.documentElement.scrollWidth') <= 320


# Compare


def test_two_settings_side_by_side(page, server):
    tab(page, 'Compare')
    keep_seed(page, 2)
    page.get_by_label('Text to continue').fill(PROMPT)
    sides = [page.get_by_role('region', name=f'Text of {letter}') for letter in 'AB']
    press(page, 'Draw both')
    done(page)
    for side, temperature in zip(sides, (1, 0.7)):
        expect(side).to_have_text(drawn(server, PROMPT, 2, temperature=temperature).strip())
    first, second = (side.text_content() for side in sides)
    assert first != second
    parts = [side.locator('.drawn').text_content() for side in sides]
    assert first.removesuffix(parts[0]) == second.removesuffix(parts[1])
    page.get_by_role('region', name='B', exact=True).get_by_role('spinbutton', name='temperature').fill('1')
    press(page, 'Draw both')
    done(page)
    assert sides[0].text_content() == sides[1].text_content() == first


def test_two_models_side_by_side(browser, guarded):
    with opened(browser, guarded, '#compare', quiet=False) as page:
        asked = prompts(page)
        give_key(page, 'right')
        chosen = page.get_by_label('model').locator('visible=true')
        expect(chosen).to_have_count(2)
        assert [select.input_value() for select in chosen.all()] == ['7M', 'other']
        press(page, 'Draw both')
        done(page)
        assert {each['model'] for each in asked} == {'7M', 'other'}
        first, second = (page.get_by_role('region', name=f'Text of {letter}').text_content() for letter in 'AB')
        assert first == second != ''  # the other one is the same model


# Story


def test_an_adventure_is_kept_and_exported(page, server):
    asked = prompts(page)
    tab(page, 'Story')
    keep_seed(page, 4)
    memory = page.get_by_label('Memory')
    memory.fill('You are a knight.')
    page.get_by_label('What you do').fill('Open the door')
    page.get_by_label('What you do').press('Enter')
    done(page)
    before = 'You are a knight.\n\n\n> Open the door\n\n'
    log = page.get_by_role('log')
    prompt = asked[0]['prompt']
    assert server.ask('/v1/detokenize', {'ids': prompt})[1]['text'] == before
    answer = drawn(server, prompt, 4, stop=['\n>'])
    expect(log).to_contain_text(answer.strip())
    page.reload()
    expect(log).to_contain_text(answer.strip())
    expect(memory).to_have_value('You are a knight.')
    with page.expect_download() as download:
        press(page, 'Export')
    assert pathlib.Path(download.value.path()).read_text(encoding='utf-8') == f'{before}{answer}\n'
    press(page, 'New')
    expect(log).not_to_contain_text('Open the door')
    press(page, 'Undo')
    expect(log).to_contain_text('Open the door')
    press(page, 'Do')  # the story goes on by itself
    done(page)
    assert server.ask('/v1/detokenize', {'ids': asked[1]['prompt']})[1]['text'] == before + answer


def test_a_dialogue_whose_start_no_longer_fits(browser, server):
    said = ' Turn {} of a very long talk between the two of them, who have known each other for years and meet again.'
    turns = [{'own': not number % 2, 'text': said.format(number)} for number in range(30)]
    story = {'memory': 'A talk.', 'names': {'own': 'Anne', 'other': 'Ben'}, 'turns': turns}
    kept = json.dumps({'kind': 'dialogue', 'dialogue': story})
    with opened(browser, server, '#story') as page:
        page.evaluate('(kept) => localStorage.setItem("gpt2 story", kept)', kept)
        page.reload()
        asked = prompts(page)
        page.get_by_label('What you say').fill('Good evening.')
        press(page, 'Say')
        done(page)
        prompt = asked[0]['prompt']
        read = server.ask('/v1/detokenize', {'ids': prompt})[1]['text']
        first = int(re.match(r'A talk\.\n\n(?:Anne|Ben): +Turn (\d+)', read).group(1))
        assert read.endswith('\nAnne: Good evening.\nBen:')
        assert 513 - 40 - 40 < len(prompt) <= 513 - 40
        assert asked[0]['stop'] == ['\nAnne:', '\nBen:']
        expect(page.locator('.log .forgotten')).to_have_count(first)
        expect(page.locator('.log .cut')).to_have_text('The model reads from here on')
        expect(page.locator('.log p').last).to_contain_text('Ben')
        page.get_by_label('Memory').fill('A very long talk. ' * 200)
        press(page, 'Say')
        expect(page.get_by_role('alert')).to_contain_text('do not fit the window of 512')


STORY = {
    'memory': 'A sea.',
    'names': {'own': 'Anne', 'other': 'Ben'},
    'turns': [{'own': True, 'text': 'Open the door'}],
}


ODD_STORAGE = [
    '{', 'null', '[]', '{"adventure": null}', '{"kind": "toString"}',
    json.dumps({'adventure': STORY | {'names': {'own': 1}, 'turns': [None, {'own': 1, 'text': 'b'}, *STORY['turns']]}}),
]  # fmt: skip
MISSING = '{"adventure": {}}'  # of which nothing is wrong


def test_odd_storage_is_put_aside(browser, server):
    with opened(browser, server, '#story') as page:
        memory, aside = page.get_by_label('Memory'), 'localStorage.getItem("gpt2 story, not understood")'
        for kept in (MISSING, *ODD_STORAGE):
            expect(memory).to_be_visible()
            page.evaluate('(kept) => {localStorage.clear(); localStorage.setItem("gpt2 story", kept)}', kept)
            page.reload()
            expect(memory).to_have_value('A sea.' if 'sea' in kept else re.compile('You are a knight'))
            expect(page.get_by_role('log')).to_have_text('Open the door' if 'sea' in kept else '')
            assert page.evaluate(aside) == (None if kept == MISSING else kept)
            expect(page.locator('#failure p')).to_have_count(0 if kept == MISSING else 1)
            page.reload()
            expect(memory).to_be_visible()
            expect(page.locator('#failure')).to_be_empty()


def test_a_browser_that_keeps_nothing(browser, guarded):
    block = '; '.join(
        f'Object.defineProperty(window, "{name}Storage", {{get() {{throw 1}}}})' for name in ('local', 'session')
    )
    with opened(browser, guarded, quiet=False) as page:
        page.add_init_script(block)
        page.reload()
        give_key(page, 'right')
        alert = page.get_by_role('alert')
        expect(alert).to_contain_text('This browser keeps nothing more of this page.')
        press(page, 'Dismiss')
        answer_with(page, ' piece')
        tab(page, 'Story')
        for _ in range(2):
            press(page, 'Do')
            done(page)
        expect(page.get_by_role('log')).to_have_text('piece piece')
        assert page.locator('#failure').inner_text() == ''


def test_a_story_in_two_tabs_is_one(browser, server):
    with opened(browser, server, '#story') as page:
        answer_with(page, ' Here.')
        other = page.context.new_page()
        other.goto(f'{server.address}/#story')
        answer_with(other, ' There.')
        log, others = page.get_by_role('log'), other.get_by_role('log')
        press(page, 'Do')
        expect(others).to_have_text('Here.')
        page.unroute('**/v1/completions')
        page.route('**/v1/completions', lambda route: None)  # and so this tab goes on drawing
        press(page, 'Do')
        press(other, 'Do')
        expect(others).to_have_text('Here. There.')
        expect(page.get_by_text('Another tab has changed this story.')).to_be_visible()
        expect(log).to_have_text('Here.')
        press(page, 'Take that one')
        expect(log).to_have_text('Here. There.')
        done(page)
        press(page, 'Undo')
        expect(log).to_have_text('Here.')
        expect(others).to_have_text('Here.')
        press(page, 'Do')
        press(other, 'Do')
        press(page, 'Keep this one')
        expect(others).to_have_text('Here.')
        press(other, 'Undo')


# What goes wrong


def test_an_error_is_shown_and_the_same_can_be_tried_again(browser, server):
    with opened(browser, server, quiet=False) as page:
        text = page.get_by_label('Text', exact=True)
        page.get_by_role('spinbutton', name='length').fill('600')
        text.fill(PROMPT)
        press(page, 'Continue')
        alert = page.get_by_role('alert')
        expect(alert).to_contain_text('max_tokens 512 fits')
        page.route('**/v1/completions', lambda route: route.fulfill(
            status=429, json={'error': {'message': 'too many wait; try again in a moment'}}), times=1)  # fmt: skip
        page.get_by_role('spinbutton', name='length').fill('5')
        press(page, 'Continue')
        expect(alert).to_contain_text('Too many wait; try again in a moment.')
        assert text.input_value() == PROMPT
        alert.get_by_role('button', name='Try again').click()
        done(page)
        so_far = text.input_value()
        assert len(so_far) > len(PROMPT)
        expect(alert).to_be_empty()
        answer_with(page, ' and', closed=False)
        press(page, 'Continue')
        expect(alert).to_contain_text('The answer broke off: the server went away.')
        assert text.input_value() == f'{so_far} and'


@pytest.fixture(scope='module')
def guarded(models, tmp_path_factory):
    """A server with two models that asks for a key."""
    keys = tmp_path_factory.mktemp('guarded') / 'keys'
    keys.write_text('right\n')
    with started('--model_name', '7M,other', '--api_key_file', keys, models=models) as server:
        server.keys = keys
        yield server


def give_key(page, key):
    dialog = page.get_by_role('dialog')
    dialog.get_by_label('API key').fill(key)
    dialog.get_by_role('button', name='Go on').click()


def test_a_key_is_asked_for_and_kept_as_long_as_the_tab(browser, guarded):
    with opened(browser, guarded, quiet=False) as page:
        give_key(page, 'wrong')
        expect(page.get_by_role('dialog')).to_contain_text('is not known here')
        give_key(page, 'right')
        expect(page.get_by_role('dialog')).to_be_hidden()
        expect(page.locator('#status')).to_have_text('Ready')
        assert page.evaluate('Object.values(sessionStorage)') == ['right']
        assert page.evaluate('localStorage.length') == 0
        page.reload()
        expect(page.get_by_label('Text', exact=True)).to_be_visible()
        page.evaluate('sessionStorage.clear()')
        press(page, 'Continue')
        page.get_by_role('dialog').get_by_role('button', name='Cancel').click()
        expect(page.get_by_role('alert')).to_contain_text('asks for a key, and none was given')


def test_a_server_is_killed_and_comes_back(browser, models, guarded):
    """The last test that uses it."""
    with opened(browser, guarded, quiet=False) as page:
        give_key(page, 'right')
        status = page.locator('#status')
        text = page.get_by_label('Text', exact=True)
        text.fill(PROMPT)
        workers = guarded.workers()
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)  # so that the answer is still to come
        with page.expect_request('**/v1/completions'):
            press(page, 'Continue')
        guarded.process.send_signal(signal.SIGKILL)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        alert = page.get_by_role('alert')
        expect(alert).to_contain_text('The server does not answer.')
        expect(status).to_have_text('No server')
        flags = ('--api_key_file', guarded.keys, '--port', guarded.port)
        with started('--model_name', '7M', *flags, models=models):
            expect(status).to_have_text('Ready')
            alert.get_by_role('button', name='Try again').click()
            done(page)
            assert len(text.input_value()) > len(PROMPT)
            expect(alert).to_be_empty()


def test_a_model_that_loads_is_no_error(browser, server):
    with opened(browser, server) as page:
        _, models, _ = server.ask('/v1/models')
        assert models['data'][0]['ready']
        models['data'][0]['ready'] = False
        page.route('**/v1/models', lambda route: route.fulfill(json=models))
        page.reload()
        expect(page.locator('#status')).to_have_text('Loading the model')
        page.unroute('**/v1/models')
        expect(page.locator('#status')).to_have_text('Ready')


def answer_with(page, text, closed=True):
    """Have completions answered by a text; where the stream is not closed it breaks off."""
    event = json.dumps({'choices': [{'index': 0, 'text': text, 'finish_reason': None}]})
    body = f'data: {event}\n\n' + 'data: [DONE]\n\n' * closed
    page.route('**/v1/completions', lambda route: route.fulfill(content_type='text/event-stream', body=body))


def test_markup_is_text(page):
    answer_with(page, MARKUP)
    text = page.get_by_label('Text', exact=True)
    text.fill(MARKUP)
    press(page, 'Continue')
    expect(text).to_have_value(MARKUP * 2)
    tokens = look(page, MARKUP)
    assert page.locator('.tokens').text_content() == MARKUP
    tokens.nth(0).click()
    tab(page, 'Compare')
    press(page, 'Draw both')
    expect(page.get_by_role('region', name='Text of A')).to_have_text(MARKUP)
    tab(page, 'Story')
    page.get_by_label('What you do').fill(MARKUP)
    press(page, 'Do')
    done(page)
    assert page.get_by_role('log').text_content().count(MARKUP) == 2
    assert page.locator('img, body script').count() == 0
    assert page.title() == 'Story · GPT-2'


def test_the_browser_lets_nothing_else_in(server):
    _, content, headers = server.ask('/')
    policy = dict(part.strip().split(' ', 1) for part in headers['Content-Security-Policy'].split(';'))
    assert policy['default-src'] == policy['base-uri'] == policy['frame-ancestors'] == "'none'"
    assert policy['script-src'] == policy['style-src'] == policy['connect-src'] == "'self'"
    assert policy['require-trusted-types-for'] == "'script'"
    assert not re.search(r' (style|on\w+)=|https?:|<style|<script[^>]*>[^<]', content)
    _, script, headers = server.ask('/page/app.js')
    assert (headers['Content-Type'], headers['X-Content-Type-Options']) == ('text/javascript; charset=utf-8', 'nosniff')
    assert 'import' in script
    for path in ('/page/../app.py', '/page/%2e%2e/app.py', '/page/none.js', '/page/'):
        assert server.ask(path)[0] == 404, path


# For everybody


def fill_every_tab(page):
    """Yield the name of each tab when it shows what it is there to show."""
    for name in TABS:
        tab(page, name.capitalize())
        if name == 'write':
            page.get_by_label('Text', exact=True).fill(PROMPT)
            press(page, 'Offer three')
        elif name == 'look':
            look(page, f'{PROMPT} there lived a xylophone in the 日本 garden of Constantinople.').nth(5).click()
        else:
            press(page, 'Draw both' if name == 'compare' else 'Do')
        done(page)
        yield name


def axe_finds_nothing(page):
    """Names, roles, contrast and more, by the rules of axe-core; in the dark the contrast, which alone is another."""
    axe = pytest.importorskip('axe_playwright_python.sync_playwright').Axe()
    for scheme, rules in (('light', {}), ('dark', {'runOnly': ['color-contrast']})):
        page.emulate_media(color_scheme=scheme)
        found = axe.run(page, options={'resultTypes': ['violations'], **rules})
        assert found.violations_count == 0, (scheme, found.generate_report())


def test_axe_finds_nothing(browser, server):
    with opened(browser, server, reduced_motion='reduce') as page:
        for _ in fill_every_tab(page):
            axe_finds_nothing(page)


def test_at_400_percent_nothing_is_beside_the_screen(browser, server):
    with opened(browser, server, viewport={'width': 320, 'height': 256}) as page:
        for name in fill_every_tab(page):
            assert page.evaluate('document.documentElement.scrollWidth') <= 320, name
            assert page.locator('.sticky:visible').evaluate('(bar) => getComputedStyle(bar).position') == 'static'
            if name == 'look':
                box = page.locator('.likeliest').bounding_box()
                assert box['x'] >= 0 and box['x'] + box['width'] <= 320 and box['y'] + box['height'] <= 256


def test_keys_alone_do_everything(page):
    def focused():
        return page.evaluate('document.activeElement.textContent || document.activeElement.ariaLabel')

    keys = page.keyboard
    expect(page.get_by_label('Text', exact=True)).to_be_visible()
    keys.press('Tab')
    assert focused() == 'Write'
    keys.press('Tab')
    assert focused() == 'Text'
    keys.type(PROMPT)
    keys.press('Control+Enter')
    done(page)
    keys.press('Shift+Tab')
    keys.press('ArrowRight')
    assert focused() == 'Look'
    expect(page.get_by_role('tab', name='Look')).to_have_attribute('aria-selected', 'true')
    keys.press('Tab')
    keys.press('Tab')
    keys.press('Enter')
    done(page)
    keys.press('Shift+Tab')
    expect(page.locator('.token').first).to_be_focused()
    keys.press('ArrowRight')
    keys.press('Enter')
    expect(page.locator('.likeliest button').first).to_be_focused()
    keys.press('ArrowDown')
    expect(page.locator('.likeliest button').nth(1)).to_be_focused()
    keys.press('Escape')
    expect(page.locator('.token').nth(1)).to_be_focused()
    expect(page.locator('.likeliest')).to_be_hidden()
