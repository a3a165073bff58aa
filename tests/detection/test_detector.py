"""Detectors: against scikit-learn and arithmetic by hand, how they are judged, and their file."""

import itertools
import json
import math
import re
import zipfile

import numpy as np
import pytest
from reading_engine import both_sides
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from gpt2.detection import detector as module
from gpt2.detection import figures, fit
from gpt2.detection.detector import Detector, Linear, load, save
from gpt2.detection.features import NAMES
from gpt2.detection.report import experience, report
from gpt2.detection.texts import Split
from gpt2.detection.train import train
from gpt2.errors import UsageError

RHYMES = [
    'The king was in his counting house', 'The queen was in the parlour', 'The maid was in the garden, the garden',
    'Along there came a blackbird', 'The king was in the garden', 'The queen was in the counting house',
    'The blackbird was in the pie', 'The maid was in his parlour',
]  # fmt: skip
LABELS = np.array([0, 0, 1, 1, 0, 0, 1, 1])


@pytest.fixture(scope='module')
def sides(encoder):
    return tuple(Split(texts[:40], texts[40:50], texts[50:]) for texts in both_sides(encoder, 70))


@pytest.fixture(scope='module')
def trained(engine, encoder, sides):
    found = train(*sides, engine, encoder, 'both')
    model = {'name': '7M', 'identity': '0', 'precision': 'float32'}
    found.about.update(human='books', machine='7M', published=None, model=model)
    return found


# Words


def test_the_baseline_is_scikit_learns_by_hand():
    """And TF-IDF is what its definition says."""
    found = fit.fit_words(RHYMES * 2, np.tile(LABELS, 2), RHYMES, LABELS)
    grams = []
    for text in RHYMES:
        words = re.findall(r'\w\w+', text.lower())
        grams.append(words + [' '.join(pair) for pair in itertools.pairwise(words)])
    counts = {gram: sum(gram in each for each in grams) * 2 for each in grams for gram in each}
    terms = sorted(gram for gram, count in counts.items() if count >= 5)
    assert found.terms == terms and 'was in' in terms and 'pie' not in terms
    idf = np.array([math.log((1 + 16) / (1 + counts[term])) + 1 for term in terms])
    np.testing.assert_allclose(found.idf, idf)
    values = np.array([[each.count(term) for term in terms] for each in grams]) * idf
    values /= np.linalg.norm(values, axis=1, keepdims=True).clip(1e-9)
    pipeline = TfidfVectorizer(ngram_range=(1, 2), min_df=5, max_features=2**21)
    theirs = pipeline.fit_transform(RHYMES * 2)
    np.testing.assert_allclose(theirs[:8].toarray(), values)
    best, right = None, -1
    for strength in [1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64]:
        model = LogisticRegression(solver='liblinear', C=strength).fit(theirs, np.tile(LABELS, 2))
        if (score := model.score(theirs[:8], LABELS)) > right:
            best, right = model, score
    np.testing.assert_allclose(found.decisions(RHYMES), best.decision_function(theirs[:8]), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.decisions(RHYMES), values @ found.linear.weights + found.linear.offset)
    assert right > 0.5


def test_words_that_are_too_rare_are_refused_in_one_line():
    with pytest.raises(UsageError, match=r'no word is in 5 of the 4 texts; give more texts'):
        fit.fit_words(['one', 'two', 'three', 'four'], LABELS[:4], ['one'], LABELS[:1])


def test_both_sides_weigh_alike_however_many_their_texts():
    values = np.array([[-1.0], [1.0], *[[1.0]] * 8, [-1.0]])
    labels = np.array([0, 0, *[1] * 8, 1])
    linear = fit.regression(values, labels, C=1e6)
    # Balanced, people are at -1 in half the cases and the machine in a ninth.
    odds = [math.log((1 / 9) / (1 / 2)), math.log((8 / 9) / (1 / 2))]
    np.testing.assert_allclose(linear(np.array([[-1.0], [1.0]])), odds, atol=1e-3)


# What the model says, both, calibration


def test_a_detector_tells_its_texts_apart_and_knows_how_well(trained, sides):
    about = trained.about
    assert list(about['figures']) == ['words', 'model', 'both'] == list(trained.calibration)
    assert about['texts'] == {'train': [40, 40], 'valid': [10, 10], 'test': [20, 20]}
    for found in about['figures'].values():
        assert found['right']['share'] > 0.7 and found['right']['texts'] == 40
        low, high = found['right']['interval']
        assert low < found['right']['share'] <= high
    assert about['curvature']['machines'] > about['curvature']['people'] and not about['looks_exchanged']


def test_exchanged_texts_are_noticed_by_what_the_model_says(engine, encoder, sides):
    about = train(*reversed(sides), engine, encoder, 'model').about
    assert about['looks_exchanged'] and list(about['figures']) == ['model']


def test_no_model_reads_for_words_alone(encoder, sides):
    found = train(*sides, None, encoder, 'words')
    assert found.reader is None and list(found.calibration) == ['words'] and 'curvature' not in found.about
    assert sum(row['right']['words']['texts'] for row in found.about['by_length']) == 40


@pytest.mark.filterwarnings('error')
def test_odds_beyond_what_floats_hold_are_certainties():
    assert module.logistic(np.array([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]


def test_calibration_makes_overconfident_odds_those_of_what_happens():
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 20000)
    labels = (random.random(20000) < 1 / (1 + np.exp(-odds))).astype(int)
    decisions = np.stack([5 * odds + 3, random.normal(size=20000)], axis=1)
    linear = fit.fit_calibration(decisions, labels, ['words', 'both'])
    assert linear['words'].weights == pytest.approx([0.2], rel=0.05)
    assert linear['words'].offset == pytest.approx(-0.6, abs=0.1)
    assert linear['both'].weights == pytest.approx([0.2, 0], abs=0.04) and list(linear) == ['words', 'both']
    probabilities = Detector(None, None, linear, {}).probabilities(decisions)['words']
    assert figures.calibration_error(probabilities, labels) < 0.02
    assert figures.calibration_error(1 / (1 + np.exp(-decisions[:, 0])), labels) > 0.1


# Figures


@pytest.mark.parametrize(('right', 'count'), [(8, 10), (0, 7), (7, 7), (500, 1000), (1, 1)])
def test_intervals_are_wilsons(right, count):
    expected = binomtest(right, count).proportion_ci(method='wilson')
    assert figures.wilson(right, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_of_nothing_nothing_is_known():
    assert figures.share(np.array([], bool)) == {'texts': 0, 'share': None, 'interval': (0.0, 1.0)}


def test_errors_of_both_kinds_are_told_apart():
    probabilities, labels = np.array([0.9, 0.4, 0.2, 0.6, 0.7]), np.array([1, 1, 0, 0, 0])
    found = figures.figures(probabilities, labels)
    assert found['right']['share'] == pytest.approx(2 / 5)
    assert found['people_taken_for_machines']['share'] == pytest.approx(2 / 3)
    assert found['machines_taken_for_people']['share'] == pytest.approx(1 / 2)
    assert found['calibration_error'] == pytest.approx((0.1 + 0.6 + 0.2 + 0.6 + 0.7) / 5)


def test_rows_by_length_are_where_texts_are():
    lengths, labels = np.array([10, 49, 50, 250, 900]), np.array([0, 1, 1, 1, 0])
    rows = figures.by_length({'words': np.array([0.1, 0.1, 0.9, 0.9, 0.9])}, labels, lengths)
    found = [(row['tokens'], row['right']['words']['texts'], row['right']['words']['share']) for row in rows]
    assert found == [([0, 50], 2, 0.5), ([50, 100], 1, 1), ([200, 400], 1, 1), ([800, None], 1, 0)]
    assert experience({'by_length': rows}, 'words', 49).startswith('of 2 texts of 0 to 49 tokens it judged 50.0 (')
    assert 'of 1 texts of 800 and more tokens' in experience({'by_length': rows}, 'words', 5000)
    assert experience({'by_length': rows}, 'words', 150) == 'it was not tested on texts of such a length'


def test_the_report_has_every_figure_and_what_none_of_them_proves(trained):
    text = report(trained.about)
    assert text.startswith('# 7M against books, read by 7M\n') and module.CAVEAT in text
    right = trained.about['figures']['model']['right']
    low, high = right['interval']
    assert f'| what the model says | {100 * right["share"]:.1f} ({100 * low:.1f}–{100 * high:.1f}) |' in text
    assert 'Published' not in text and 'train 40 and 40; valid 10 and 10; test 20 and 20' in text
    text = report(trained.about | {'published': 74.31})
    assert '| Published, right |' in text and text.count('74.31 %') == 1


# The file


def test_a_detector_is_the_same_when_it_is_read_again(tmp_path, trained):
    path = str(tmp_path / 'a.npz')
    save(path, trained)
    again = load(path)
    texts, features = RHYMES[:3], np.random.default_rng(0).normal(size=[3, len(NAMES)])
    expected = trained.probabilities(trained.decisions(texts, features))
    found = again.probabilities(again.decisions(texts, features))
    assert list(found) == ['words', 'model', 'both']
    for name in found:
        assert found[name].tolist() == expected[name].tolist()
    assert again.about['figures']['words']['right']['share'] == trained.about['figures']['words']['right']['share']
    with np.load(path, allow_pickle=False) as arrays:
        assert {arrays[name].dtype.kind for name in arrays} == {'f', 'u'}


def parts_of(trained, tmp_path):
    save(str(tmp_path / 'whole.npz'), trained)
    with np.load(tmp_path / 'whole.npz') as arrays:
        return dict(arrays)


RIGHT = {'texts': 1, 'share': 1, 'interval': [0, 1]}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'words/idf': np.array([np.nan])}, 'an array in it is not what it should be'),
        ({'model/mean': np.zeros(3)}, 'an array in it is not what it should be'),
        ({'words/weights': np.array(['a'])}, 'an array in it is not what it should be'),
        ({'calibration/both/weights': None}, 'calibration/both/weights'),
        ({'about': module.as_bytes('{"format": 2}')}, 'it is of another version'),
        ({'about': module.as_bytes('[]')}, 'it is of another version'),
        ({'about': module.as_bytes('no JSON')}, 'Expecting value'),
        ({'words/idf': None, 'model/mean': None}, 'it is not whole'),
        ({'about': module.as_bytes(json.dumps({'format': 1, 'features': NAMES, 'model': {}}))}, 'it is not whole'),
        ({'about': module.as_bytes(json.dumps({'format': 1, 'features': 1}))}, 'holds no detector'),
        ({'words/terms': np.array([{}], object)}, 'Object arrays cannot be loaded'),
        ({'about': module.as_bytes('[' * 100_000)}, 'recursion'),
        ({'words/terms': 'the first term twice'}, 'a term comes twice'),
        ({'words/weights': 'all 1e300'}, 'an array in it is not what it should be'),
        ({'model/scale': np.zeros(len(NAMES))}, 'a scale in it is not above 0'),
        ({'about': {'model': ['name', 'identity', 'precision']}}, 'list indices'),
        ({'about': {'model': {'name': 5, 'identity': '', 'precision': 'float32'}}}, 'it names no model'),
        ({'about': {'by_length': None}}, 'not iterable'),
        ({'about': {'by_length': [{}]}}, "'right'"),
        ({'about': {'by_length': [{'tokens': 'ab', 'right': dict.fromkeys(module.DETECTORS, RIGHT)}]}}, 'in numbers'),
    ],
)
def test_what_is_no_detector_is_refused_in_one_line(tmp_path, trained, change, message):
    arrays = parts_of(trained, tmp_path)
    made = {
        'the first term twice': lambda: module.as_bytes('\n'.join([trained.words.terms[0], *trained.words.terms[:-1]])),
        'all 1e300': lambda: np.full_like(trained.words.linear.weights, 1e300),
    }
    change = {name: made[value]() if isinstance(value, str) else value for name, value in change.items()}
    if isinstance(change.get('about'), dict):
        about = json.loads(module.as_text(arrays['about'])) | change['about']
        change = {'about': module.as_bytes(json.dumps(about))}
    arrays |= change
    np.savez(tmp_path / 'odd.npz', **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UsageError) as raised:
        load(str(tmp_path / 'odd.npz'))
    assert message in str(raised.value) and 'holds no detector' in str(raised.value)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('content', [b'', b'no archive', b'PK\x03\x04 cut short', None, b'\x80\x04N.'])
def test_nor_is_any_other_file(tmp_path, content):
    path = tmp_path / 'odd.npz'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match='holds no detector') as raised:
        load(str(path))
    assert 'pickle' not in str(raised.value)


def test_one_that_is_damaged_is_refused(tmp_path, trained):
    save(str(tmp_path / 'a.npz'), trained)
    whole = (tmp_path / 'a.npz').read_bytes()
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 30):
        (tmp_path / 'a.npz').write_bytes(whole[:place])
        with pytest.raises(UsageError, match='holds no detector'):
            load(str(tmp_path / 'a.npz'))
    (tmp_path / 'a.npz').write_bytes(whole[:300] + bytes(50) + whole[350:])
    with pytest.raises(UsageError, match='holds no detector'):
        load(str(tmp_path / 'a.npz'))


def test_one_that_no_reader_takes_or_that_unpacks_to_more_than_any_is_refused(tmp_path, trained, monkeypatch):
    save(str(tmp_path / 'a.npz'), trained)
    whole = bytearray((tmp_path / 'a.npz').read_bytes())
    method = whole.index(b'PK\x01\x02') + 10  # of the first entry, in the archive's directory
    whole[method] = 77
    (tmp_path / 'b.npz').write_bytes(whole)
    with pytest.raises(UsageError, match='holds no detector'):
        load(str(tmp_path / 'b.npz'))
    with zipfile.ZipFile(tmp_path / 'c.npz', 'w') as archive:
        archive.writestr('about.npy', b'no array')
    with pytest.raises(UsageError, match='holds no detector'):
        load(str(tmp_path / 'c.npz'))
    monkeypatch.setattr(module, 'LARGEST_SMALL', 1000)
    with pytest.raises(UsageError, match='it is longer than 1000 bytes when it is unpacked'):
        load(str(tmp_path / 'a.npz'))


def test_numbers_that_never_vary_tell_nothing():
    features = np.ones([6, len(NAMES)])
    features[:3, 1] = 0
    reader = fit.fit_reader(features, np.array([0, 0, 0, 1, 1, 1]))
    assert np.isfinite(reader.decisions(features)).all()
    assert (reader.decisions(features) > 0).tolist() == [False] * 3 + [True] * 3
    assert Linear(np.ones(2), 1.0)(np.array([[1.0, 2.0]])).tolist() == [4.0]
