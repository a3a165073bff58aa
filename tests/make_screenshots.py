"""Make docs/images/: what the server's page looks like, with the bundled model, in light and in dark.

    apt-get install chromium fonts-inter fonts-urw-base35
    pip install playwright pillow
    python tests/make_screenshots.py
"""

import io
import json
import pathlib
import shutil
import sys

from PIL import Image
from playwright.sync_api import expect, sync_playwright

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / 'src')]

from example_models import MODELS  # noqa: E402
from serving.conftest import started  # noqa: E402

IMAGES = HERE.parent / 'docs' / 'images'
SIZE = {'width': 1120, 'height': 720}
expect.set_options(timeout=120_000)  # milliseconds
STORY = {
    'kind': 'adventure',
    'adventure': {
        'memory': 'You are a knight in the kingdom of Oz. You have a sword, a lamp and a brave little dog.',
        'names': {'own': 'Traveller', 'other': 'Wizard'},
        'turns': [],
    },
}


def main():
    IMAGES.mkdir(exist_ok=True)
    with started('--model_name', '7M', models=MODELS) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
        for scheme in ('light', 'dark'):
            for show in (write, look, compare, story):
                context = browser.new_context(color_scheme=scheme, viewport=SIZE)
                page = context.new_page()
                page.goto(f'{server.address}/#{show.__name__}')
                show(page)
                page.mouse.move(0, 0)
                save(page.screenshot(), IMAGES / f'{show.__name__}-{scheme}.png')
                context.close()


def save(content, path):
    image = Image.open(io.BytesIO(content)).convert('RGB')
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)  # a third


def press(page, name):
    page.get_by_role('button', name=name, exact=True).click()


def done(page):
    expect(page.locator('[role=tabpanel]:visible > *')).to_have_attribute('aria-busy', 'false')


def set_up(page, **values):
    for name, value in values.items():
        page.get_by_role('spinbutton', name=name, exact=True).first.fill(str(value))


def write(page):
    text = page.get_by_label('Text', exact=True)
    text.fill('Once upon a time there was a little princess who lived in')
    set_up(page, temperature=0.8, seed=12)
    press(page, 'Continue')
    done(page)
    text.press('Tab')
    done(page)
    expect(page.get_by_role('option')).to_have_count(3)


def look(page):
    page.get_by_label('Text to look at').fill(
        'Once upon a time there was a little girl who lived with her mother in a house by the sea. Every morning she '
        'went down to the shore to count the helicopters, and every evening she told the moon how many there were.'
    )
    press(page, 'Look')
    done(page)
    page.locator('.token').nth(24).click()


def compare(page):
    set_up(page, seed=3435866116)
    press(page, 'Draw both')
    done(page)


def story(page):
    page.evaluate('(story) => localStorage.setItem("gpt2 story", story)', json.dumps(STORY))
    page.reload()
    set_up(page, temperature=0.8, seed=5)
    for deed in ('Open the old door', 'Ask the wizard for help'):
        page.get_by_label('What you do').fill(deed)
        press(page, 'Do')
        done(page)


if __name__ == '__main__':
    main()
