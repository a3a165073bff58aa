"""Synthetic pages, as a crawl has them: known text among boilerplate, near-duplicates of a known similarity, other
languages, links to Wikipedia, broken markup. The same numbers give the same pages."""

import html
import io
import json
import random
from typing import NamedTuple

CONSONANTS = 'b c d f g h j l m n p r s t v w br ch cl dr gr pl sh sl st th tr'
VOWELS = 'a e i o u ai ea ee oo ou'
SYLLABLES = [first + vowel for first in CONSONANTS.split() for vowel in VOWELS.split()]
COMMON = (
    'the of and to in a is that for it was on with as he be at by this had not are but from or have an '
    'they which one you were all her she there would their we him been has when who will no more if out '
    'so what up said its about than into them can only other time new some could these two may first then '
    'do any like my now over such our man me even most made after also did many off before must well back '
    'through years where much your way down should because long each just state people those too mr how '
    'little good world make very year still see own work men day get here old life both between being '
    'under three never know same last another while us might great go come since against right came take '
    'used himself few house use place during high without again home around small however found water '
    'thought went say part once general upon school every '
)
FOREIGN = {
    'de': (
        'der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden '
        'aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur '
        'oder aber vor zur bis mehr durch man sein wurde sei schon wenn ihre unter wir kann ich gegen jahre '
        'zwischen können haus wasser straße schule möglich während größe später freundschaft geschichte '
        'entwicklung regierung wissenschaft '
    ),
    'fr': (
        'le de un être et à il avoir ne je son que se qui ce dans en du elle au pour pas vous par sur faire '
        'plus dire me on mon lui nous comme mais pouvoir avec tout y aller voir bien où sans tu ou leur homme '
        'si deux mari moi vouloir femme venir quand grand celui notre ailleurs toujours maison école château '
        'rivière française pendant jusque beaucoup déjà première histoire gouvernement développement '
    ),
    'es': (
        'el la de que y a en un ser se no haber por con su para como estar tener le lo todo pero más hacer o '
        'poder decir este ir otro ese si me ya ver porque dar cuando él muy sin vez mucho saber qué sobre mi '
        'alguno mismo yo también hasta año dos querer entre así primero desde grande eso ni nos llegar pasar '
        'tiempo ella casa escuela río montaña gobierno historia desarrollo después mañana niño señor '
    ),
}
MENU = ['Start page', 'About us', 'Contact', 'Privacy policy', 'Terms of use', 'Log in', 'Subscribe', 'Advertise']
KINDS = ('plain', 'near', 'exact', 'foreign', 'short', 'wikipedia', 'broken')
SIMILARITIES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of near-duplicates, by 5-grams of words
N = 5


class Page(NamedTuple):
    """number: of the page. kind: of KINDS. text: the paragraphs that are to be kept. boilerplate: words that are not.
    original: the number of the page that it repeats, or None. similarity: to that one, of its 5-grams."""

    number: int
    kind: str
    address: str
    markup: str
    text: list[str]
    boilerplate: list[str]
    original: int | None
    similarity: float


def pages(count, seed=0):
    """Yield pages. Of 24, 9 are themselves, and as many as SIMILARITIES are near-duplicates, one for each."""
    for number in range(count):
        yield page_of(number, seed)


def page_of(number, seed=0):
    place = number % 24
    base = number - place
    if place < 9:
        return made(number, 'plain', english(number, seed), seed)
    if place < 9 + len(SIMILARITIES):  # 9 to 16: repeats page 0 to 7 of the same block
        return near(number, base + place - 9, SIMILARITIES[place - 9], seed)
    kind = {17: 'exact', 18: 'foreign', 19: 'foreign', 20: 'short', 21: 'wikipedia', 22: 'broken', 23: 'broken'}[place]
    if kind == 'exact':
        return made(number, kind, english(base + 8, seed), seed, base + 8, 1.0)
    if kind == 'foreign':
        language = list(FOREIGN)[(number // 24 + place) % len(FOREIGN)]
        return made(number, kind, prose(drawn(number, seed), FOREIGN[language].split(), 6), seed)
    text = english(number, seed, 1) if kind == 'short' else english(number, seed)
    return made(number, kind, text, seed)


def drawn(*numbers):
    return random.Random(repr(numbers))


def english(number, seed, paragraphs=6):
    return prose(drawn(number, seed), COMMON.split(), paragraphs, 0.45)


def prose(source, words, paragraphs, invented=0.0):
    """Paragraphs of four sentences; of one paragraph, one sentence. invented: how many words are made up."""
    def word():
        if source.random() < invented:
            return ''.join(source.choice(SYLLABLES) for _ in range(source.randint(2, 3)))
        return source.choice(words)

    def sentence():
        return ' '.join(word() for _ in range(source.randint(9, 16))).capitalize() + '.'

    return [' '.join(sentence() for _ in range(4 if paragraphs > 1 else 1)) for _ in range(paragraphs)]


def near(number, original, similarity, seed):
    """The original with some words in a row replaced, so many that the Jaccard similarity of 5-grams comes near."""
    text = english(original, seed)
    words = [paragraph.split() for paragraph in text]
    flat = [(place, index) for place, paragraph in enumerate(words) for index in range(len(paragraph))]
    # k of n words replaced in a row change k + 4 of n - 4 n-grams: shared / union = (n - 8 - k) / (n + k)
    count = len(flat)
    replaced = round((count - 8 - similarity * count) / (1 + similarity))
    source = drawn('near', number, seed)
    first = source.randint(0, count - replaced)
    for place, index in flat[first : first + replaced]:
        end = '.' if words[place][index].endswith('.') else ''
        words[place][index] = ''.join(source.choice(SYLLABLES) for _ in range(4)) + end
    changed = [' '.join(paragraph) for paragraph in words]
    return made(number, 'near', changed, seed, original, jaccard(text, changed))


def jaccard(first, second):
    """The similarity of two texts, given as paragraphs, by their 5-grams of words."""
    grams = [set(zip(*(words[place:] for place in range(N)))) for words in
             (' '.join(text).lower().replace('.', ' ').split() for text in (first, second))]  # fmt: skip
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def made(number, kind, text, seed, original=None, similarity=0.0):
    source = drawn('page', number, seed)
    host = 'en.wikipedia.org' if kind == 'wikipedia' else f'site{source.randrange(50)}.example'
    boilerplate = [*source.sample(MENU, 5), f'Copyright {source.randint(1999, 2017)} {host}', 'Share this everywhere']
    markup = page_markup(text, boilerplate, kind == 'broken')
    return Page(number, kind, f'http://{host}/page/{number}', markup, text, boilerplate, original, similarity)


def page_markup(text, boilerplate, broken):
    *menu, copyright_, share = (html.escape(each) for each in boilerplate)
    items = ''.join(f'<li><a href="/{place}">{each}</a></li>' for place, each in enumerate(menu))
    paragraphs = '\n'.join(f'<p>{html.escape(each)}' + ('' if broken else '</p>') for each in text)
    article = f'<article><h1>{html.escape(text[0].split(".")[0])}</h1>\n{paragraphs}\n'
    article += '<b><i>' if broken else '</article>'  # never closed, and the end is missing
    page = (
        f'<!DOCTYPE html><html><head><title>{html.escape(text[0][:40])}</title><meta charset="utf-8">'
        f'<script>var tracker = "{copyright_}";</script></head><body><nav><ul>{items}</ul></nav>\n{article}\n'
        f'<div class="share-buttons">{share}</div><footer><p>{copyright_}</p></footer>'
    )
    return page if broken else f'{page}</body></html>'


def write_warc(path, found, broken=()):
    """Write pages into a WARC file; those with a number in broken so that their record cannot be read."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    with open(path, 'wb') as file:
        for page in found:
            buffer = io.BytesIO()
            archive = WARCWriter(buffer, gzip=str(path).endswith('.gz'))
            headers = StatusAndHeaders('200 OK', [('Content-Type', 'text/html; charset=utf-8')], protocol='HTTP/1.1')
            payload = io.BytesIO(page.markup.encode())
            archive.write_record(
                archive.create_warc_record(page.address, 'response', payload=payload, http_headers=headers)
            )
            content = bytearray(buffer.getvalue())
            if page.number in broken:
                middle = len(content) // 2
                content[middle : middle + 200] = b'\xff' * 200
            file.write(content)


def write_submissions(path, found, score=5, created=1_500_000_000):
    with open(path, 'w') as file:
        for page in found:
            file.write(json.dumps({'url': page.address, 'score': score, 'created_utc': created}) + '\n')
