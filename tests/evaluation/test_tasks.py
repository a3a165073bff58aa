"""Each evaluation task on a miniature whose metrics are worked out by hand, with scores that are given."""

import itertools
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from example_models import BUNDLED, HERE, RELEASE

import gpt2
from gpt2.encoder import get_encoder
from gpt2.errors import UsageError
from gpt2.evaluation.language_model import DRAWN_TOGETHER, LanguageModel
from gpt2.evaluation.tasks import (
    TASKS,
    answers,
    choices,
    detokenise,
    lambada,
    language_modelling,
    summarisation,
    winograd,
)
from gpt2.evaluation.tasks.detokenise import BOOK_RULES, ONE_BILLION_WORD_RULES, PENN_TREEBANK_RULES, WIKITEXT_RULES
from gpt2.evaluation.tasks.task import READING
from gpt2.hparams import load_hparams


class GivenModel(LanguageModel):
    """Gives the scores and continuations it was given, and keeps what it was asked."""

    def __init__(self, score_row=None, totals=(), continuations=()):
        engine = SimpleNamespace(hparams=load_hparams(BUNDLED / 'hparams.json'))
        super().__init__(engine, get_encoder('7M', BUNDLED.parent), 1, 1)
        self.score_row, self.totals, self.continuations = score_row, iter(totals), iter(continuations)
        self.asked = []

    def score_rows(self, rows, excluded=()):
        for ids, count in rows:
            context, scored = (self.encoder.decode(part) for part in (ids[:-count], ids[-count:]))
            self.asked.append((context, scored))
            yield self.score_row(context, scored)

    def score_texts(self, texts, what):
        self.asked.append(texts)
        return next(self.totals)

    def continue_all(self, prompts, length, stop=(), top_k=0):
        for ids in prompts:
            self.asked.append((self.encoder.decode(ids), length, list(stop), top_k))
            yield next(self.continuations)


def scores(log_probabilities, ranks=(1,), likelier=(0,)):
    return np.array(log_probabilities, np.float32), np.array(ranks), np.array(likelier)


def preferring(*texts):
    """A score_row that finds what holds one of texts likelier."""
    return lambda context, scored: scores([0.0 if any(text in context + scored for text in texts) else -1.0])


def evaluate(name, folder, model, *contents):
    task = TASKS[name]
    for file, content in zip(task.files, contents, strict=True):
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return task.run(model, task.read(*(str(folder / file) for file in task.files)))


def lines(*texts):
    return ''.join(text + '\n' for text in texts)


# LAMBADA: four passages; the last words have 1, 1, 3 and 1 tokens

PASSAGES = ['“Once” ``there was\'\' a king ', 'it was all of the', 'they saw the unicorns', 'a boy and a girl']
GIVEN = {
    ' king': scores([-1.0], [2], [1]),  # only a stop word is likelier
    ' the': scores([-2.0], [1], [0]),  # itself a stop word
    ' unicorns': scores([-3.0, -2.0, -1.0], [1, 2, 1], [0, 1, 0]),  # the word no, its last token yes
    ' girl': scores([-2.0], [3], [1]),
}


def test_lambada(tmp_path):
    model = GivenModel(lambda context, scored: GIVEN[scored])
    assert [len(model.encoder.encode(word)) for word in GIVEN] == [1, 1, 3, 1]
    assert {model.encoder.encode(' the')[0]} <= set(lambada.stop_ids(model.encoder))
    found = evaluate('lambada', tmp_path, model, lines(*(json.dumps({'text': text}) for text in PASSAGES)))
    assert model.asked[0] == ('\n"Once" "there was" a', ' king')
    assert found.pop('perplexity_word') == pytest.approx(math.exp((1 + 2 + 6 + 2) / 4))
    assert found.pop('perplexity_last_token') == pytest.approx(math.exp((1 + 2 + 1 + 2) / 4))
    assert found == {
        'accuracy_word': 25, 'accuracy_word_stop_filtered': 25, 'accuracy_word_stop_filtered_without_pieces': 25,
        'accuracy_last_token': 50, 'accuracy_last_token_stop_filtered': 50, 'passages': 4,
    }  # fmt: skip


def test_lambada_plain_is_the_text_as_it_stands_after_the_end_of_text_token(tmp_path):
    model = GivenModel(lambda context, scored: GIVEN[scored])
    passages = lines("`` i say '' , said the king", 'it was all of the', 'a boy and a girl')
    found = evaluate('lambada-plain', tmp_path, model, passages)
    assert model.asked[0] == ("<|endoftext|>`` i say '' , said the", ' king')
    assert found['perplexity_word'] == pytest.approx(math.exp((1 + 2 + 2) / 3))
    # Without the filter only "the" is found; with it only "king".
    assert found['accuracy_word'] == found['accuracy_word_stop_filtered'] == pytest.approx(100 / 3)


PIECES = {
    ' Ananda': scores([-1.0, -1.0], [2, 1], [1, 0]),  # begins as " An", than which only a stop word is likelier
    ' Iona': scores([-1.0, -1.0], [1, 1]),
    ' Isabella': scores([-1.0, -1.0], [1, 2], [0, 1]),  # not goes on as it should, for all that a stop word is likelier
    ' And': scores([-1.0], [1]),
}


def test_the_stop_word_filter_is_about_words(tmp_path):
    """A word whose first token spells a stop word is none, unless the word is just that."""
    encoder = get_encoder('124M', RELEASE)
    assert [len(encoder.encode(word)) for word in PIECES] == [2, 2, 2, 1]
    assert {encoder.encode(word)[0] for word in PIECES} <= set(lambada.stop_ids(encoder))
    model = GivenModel(lambda context, scored: PIECES[scored])
    model.encoder = encoder
    found = evaluate('lambada', tmp_path, model, lines(*(json.dumps({'text': f'so said{word}'}) for word in PIECES)))
    assert found['accuracy_word'] == 50  # Iona and And
    assert found['accuracy_word_stop_filtered'] == 50  # Ananda and Iona
    assert found['accuracy_word_stop_filtered_without_pieces'] == 0
    assert found['accuracy_last_token'] == 75 and found['accuracy_last_token_stop_filtered'] == 50


def test_the_recipe_says_what_the_filter_rules_out():
    for name in ('lambada', 'lambada-plain'):
        assert " ".join(lambada.LISTED.split()) in TASKS[name].recipe and 'never right' in TASKS[name].recipe


# Files as other systems write them


def test_line_ends_and_a_byte_order_mark_make_no_difference(tmp_path):
    english, french = (lines(*(f'{word} {index}' for index in range(7))) for word in ('shown', 'montre'))
    unix, windows = [(tmp_path / name, *(tmp_path / f'{name}.{end}' for end in 'ef')) for name in ('unix', 'windows')]
    for paths, rewrite in [(unix, str), (windows, lambda text: '\ufeff' + text.replace('\n', '\r\n'))]:
        for path, text in zip(paths, ['{"text": "two words"}\n{"text": "and three words"}\n', english, french]):
            path.write_bytes(rewrite(text).encode())
    assert TASKS['lambada'].read(windows[0]) == TASKS['lambada'].read(unix[0])
    assert TASKS['ntrex-en-fr'].read(*windows[1:]) == TASKS['ntrex-en-fr'].read(*unix[1:])
    assert TASKS['ptb'].read(windows[1]) == english.splitlines()


def test_recipes_of_files_of_lines_say_how_lines_are_read():
    of_lines = {'lambada-plain', 'cbt-cn', 'cbt-ne', 'wikitext2', 'ptb', 'wikitext103', '1bw'}
    of_lines |= {name for name in TASKS if name.startswith(('wmt14', 'ntrex'))}
    assert {name for name, task in TASKS.items() if READING in task.recipe} == of_lines


def test_of_byte_exact_sets_every_byte_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(language_modelling, 'WHOLE_BYTES', 8)
    monkeypatch.setattr(language_modelling, 'HELD_OUT_BYTES', 8)
    model = GivenModel(totals=[(-16 * math.log(2), 3)])
    assert evaluate('enwik8', tmp_path, model, b'\xef\xbb\xbfa\r\nb\r') == {'bits_per_byte': pytest.approx(2)}
    assert model.asked == [['\ufeffa\r\nb\r']]


# A limit


LIMITS = [
    ('lambada', list(range(9)), 2, [0, 1]),
    ('ntrex-en-fr', list(range(9)), 2, list(range(7))),  # five are shown
    ('nq', list(range(9)), 1, list(range(6))),
    ('enwik8', bytes(5000), 2, bytes(2000)),
    ('lambada', [0], 2, [0]),
]


@pytest.mark.parametrize(('name', 'data', 'limit', 'expected'), LIMITS)
def test_a_limit_counts_items(name, data, limit, expected):
    assert TASKS[name].first(data, limit) == expected


def test_bars_name_their_task(capsys, monkeypatch):
    from gpt2.evaluation import language_model

    monkeypatch.setitem(language_model.BAR, 'disable', False)
    monkeypatch.setitem(language_model.BAR, 'delay', 0)
    model = GivenModel()
    model.task = 'cbt-ne'
    assert list(model.progress([1, 2])) == [1, 2]
    assert 'cbt-ne: ' in capsys.readouterr().err


# Children's Book Test: three questions


def cbt_question(number_of_sentences, question, answer, candidates):
    context = [f'{index + 1} Line {index} , said he .' for index in range(number_of_sentences)]
    return [*context, f'{number_of_sentences + 1} {question}\t{answer}\t\t{"|".join(candidates)}', '']


@pytest.mark.parametrize('name', ['cbt-cn', 'cbt-ne'])
def test_cbt(tmp_path, name):
    questions = [
        cbt_question(2, 'The XXXXX did n\'t eat .', 'wolf', ['cat', 'wolf', 'hen']),
        cbt_question(1, '`` A XXXXX ! \'\' she cried .', 'hen', ['hen', 'cat', 'wolf']),
        cbt_question(2, 'One XXXXX', 'cat', ['wolf', 'cat']),
    ]
    model = GivenModel(preferring('wolf', 'A hen'))
    found = evaluate(name, tmp_path, model, lines(*itertools.chain(*questions)))
    asked = [context + scored for context, scored in model.asked]
    assert asked[1] == "<|endoftext|>Line 0, said he. Line 1, said he. The wolf didn't eat."
    assert asked[3] == '<|endoftext|>Line 0, said he. "A hen!" she cried.'
    assert found == {'accuracy': pytest.approx(200 / 3), 'questions': 3}  # wolf; of hen and wolf the first; wolf


def test_choices_are_scored_after_all_that_they_share():
    texts = [[9, 1, 2, 3], [9, 1, 4], [9, 1, 2, 5, 6]]
    assert choices.choice_rows(texts, 8) == [([9, 1, 2, 3], 2), ([9, 1, 4], 1), ([9, 1, 2, 5, 6], 3)]
    assert choices.choice_rows([[9, 1], [9, 1, 2]], 8) == [([9, 1], 1), ([9, 1, 2], 2)]
    assert choices.choice_rows([[0, 9, 1, 2], [0, 9, 1, 3]], 2) == [([9, 1, 2], 1), ([9, 1, 3], 1)]


# Corpora


@pytest.mark.parametrize('name', ['wikitext2', 'wikitext103'])
def test_wikitext(tmp_path, name):
    text = [' = Title = ', ' ', ' He was born on 1 @-@ 2 May , in " St. Ives " . ', ' 1 @,@ 000 <unk> 1,0 ']
    assert [len(line.split()) for line in text] == [3, 0, 15, 5]
    model = GivenModel(totals=[(-27 * math.log(4), 54), (-27 * math.log(8), 81)])
    found = evaluate(name, tmp_path, model, lines(*text))
    # The last line cannot be restored, so it stays.
    assert model.asked == [
        ['= Title =\n\nHe was born on 1-2 May, in "St. Ives".\n 1 @,@ 000 <unk> 1,0 \n'],
        [lines(*text)],
    ]
    assert found == {
        'perplexity': pytest.approx(4), 'perplexity_per_bpe_token': pytest.approx(2),
        'perplexity_tokenised': pytest.approx(8), 'perplexity_per_bpe_token_tokenised': pytest.approx(2),
        'words': 27, 'lines_left_tokenised': 1,
    }  # fmt: skip


def test_ptb_keeps_unk(tmp_path):
    model = GivenModel(totals=[(-12 * math.log(3), 12), (-12 * math.log(5), 12)])
    found = evaluate('ptb', tmp_path, model, lines(" no it was n't $ N ", " the <unk> 's N N ", ' mr. <unk> did '))
    assert model.asked[0] == ["no it wasn't $N\nthe <unk>'s N N\nmr. <unk> did\n"]
    assert found['perplexity'] == pytest.approx(3 ** (12 / 17)) and found['words'] == 17


def test_1bw_scores_each_sentence_by_itself(tmp_path):
    model = GivenModel(totals=[(-10 * math.log(2), 10), (-20 * math.log(2), 20)])
    found = evaluate('1bw', tmp_path, model, lines('He said " no " .', 'Why ?', 'So .'))
    assert model.asked[0] == ['He said "no".\n', 'Why?\n', 'So.\n']
    assert found['words'] == 13 and found['perplexity'] == pytest.approx(2 ** (10 / 13))


# Three corpora of twelve bytes: what is held out of each, the model's bits for it, bits / 5.
HELD_OUT = [
    ('abcdeéé bc'.encode(), 'é bc', 10, 2.0),
    ('abcdeé'.encode() + b'\xc3bcd\n', '\udcc3bcd\n', 5, 1.0),  # begins within a character
    (b'one two five', ' five', 8, 1.6),
]


@pytest.mark.parametrize(('name', 'metric'), [('enwik8', 'bits_per_byte'), ('text8', 'bits_per_character')])
@pytest.mark.parametrize(('content', 'held_out', 'bits', 'expected'), HELD_OUT)
def test_compression_counts_the_last_bytes(tmp_path, monkeypatch, name, metric, content, held_out, bits, expected):
    monkeypatch.setattr(language_modelling, 'WHOLE_BYTES', 12)
    monkeypatch.setattr(language_modelling, 'HELD_OUT_BYTES', 5)
    model = GivenModel(totals=[(-bits * math.log(2), 3)])
    assert evaluate(name, tmp_path, model, content) == {metric: pytest.approx(expected)}
    assert model.asked == [[held_out]]
    with pytest.raises(UsageError, match='the file has 13 bytes, expected the whole 12'):
        evaluate(name, tmp_path, model, content + b'x')


# Detokenisers

TOKENISED = [
    (WIKITEXT_RULES, ' = = Early life = = ', '== Early life =='),
    (WIKITEXT_RULES, " Robert 's son ( born in St. Ives ) didn 't , at 5 @.@ 5 % ; he : \" Go ! \" ",
     'Robert\'s son (born in St. Ives) didn\'t, at 5.5%; he: "Go!"'),
    (WIKITEXT_RULES, ' " A " and " B " [ 1 ] cost $ 5 . ', '"A" and "B" [1] cost $5.'),
    (WIKITEXT_RULES, ' plan B . ', 'plan B .'),
    (PENN_TREEBANK_RULES, " mr. <unk> is n't $ N ", "mr. <unk> isn't $N"),
    (BOOK_RULES, "`` Well , '' said he , `` I do n't -LRB- now -RRB- ! ''", '"Well," said he, "I don\'t (now)!"'),
    (ONE_BILLION_WORD_RULES, 'He said : " It \'s 5 % . "', 'He said: "It\'s 5%."'),
]  # fmt: skip


@pytest.mark.parametrize(('rules', 'tokenised', 'text'), TOKENISED)
def test_detokenisers_and_their_inverses(rules, tokenised, text):
    assert detokenise.apply(rules, tokenised) == text
    assert detokenise.undo(rules, text) == tokenised


def test_a_line_that_could_not_be_restored_is_left():
    assert detokenise.detokenise(WIKITEXT_RULES, [' a-b ', ' a @-@ b ']) == ([' a-b ', 'a-b'], 1)


# Winograd: three schemas

SCHEMAS = """<collection>
<schema><text><txt1>The trophy did not fit in the bag because</txt1><pron>it</pron><txt2>is too
 big.</txt2></text><answers><answer>The trophy</answer><answer>The bag</answer></answers>
<correctAnswer>A</correctAnswer></schema>
<schema><text><txt1>Tom paid Sam for</txt1><pron>his</pron><txt2>work.</txt2></text>
<answers><answer>Tom</answer><answer>Sam</answer></answers><correctAnswer> B. </correctAnswer></schema>
<schema><text><txt1>Ann saw Eve;</txt1><pron>she</pron><txt2>, too, ran.</txt2></text>
<answers><answer>Ann</answer><answer>Eve</answer></answers><correctAnswer>B</correctAnswer></schema>
</collection>"""


def test_winograd(tmp_path):
    def score_row(context, scored):
        if scored in (' is too big.', ' work.', ', too, ran.'):  # partial: candidates differ in the context alone
            return scores([0.0 if re.search("the trophy$|Sam's$|; Ann$", context) else -1.0])
        return scores([0.0 if re.search("the bag is|Sam's|Eve,", context + scored) else -1.0])

    model = GivenModel(score_row)
    found = evaluate('winograd', tmp_path, model, SCHEMAS)
    assert model.asked[0] == ('<|endoftext|>The trophy did not fit in the bag because the trophy', ' is too big.')
    assert model.asked[3] == ("<|endoftext|>Tom paid Sam for Sam's", ' work.')
    assert found == {'accuracy_partial': pytest.approx(200 / 3), 'accuracy_full': pytest.approx(200 / 3), 'schemas': 3}


def test_a_candidate_takes_the_form_of_the_pronoun():
    assert winograd.fill('They', 'The men') == 'The men'
    assert winograd.fill('they', 'The men') == 'the men'
    assert winograd.fill('their', 'The men') == "the men's"
    assert winograd.fill('he', 'Theo') == 'Theo'


# CoQA: one conversation of two turns and one of one


def test_coqa(tmp_path):
    def turns(*texts):
        return [{'input_text': text} for text in texts]

    data = {'data': [
        {'story': 'A cat sat.', 'questions': turns('What sat?', 'Was it white?'),
         'answers': turns('the white cat', 'Yes'),
         'additional_answers': {'0': turns('a cat', 'yes.'), '1': turns('White cat', 'no')}},
        {'story': 'Nothing.', 'questions': turns('Who?'), 'answers': turns('Nobody at all')},
    ]}  # fmt: skip
    model = GivenModel(continuations=[' A white cat.', ' no', ' nobody'])
    found = evaluate('coqa', tmp_path, model, json.dumps(data))
    assert model.asked[1] == ('A cat sat.\n\nQ: What sat?\nA: the white cat\nQ: Was it white?\nA:', 32, ['\n'], 0)
    # 1: white cat against white cat 1, cat 2/3, white cat 1: leaving out each, the best of the others is 1.
    # 2: no against yes, yes, no: 1, 1 and, leaving out the third, 0. 3: one of three words: 2 * 1/(1 + 3).
    assert found == {'f1': pytest.approx(100 * (1 + 2 / 3 + 1 / 2) / 3), 'questions': 3}


def test_answers_are_compared_without_case_punctuation_and_articles():
    assert answers.normalise('The  Cat, a-b: an end!') == ['cat', 'ab', 'end']
    assert answers.f1('the cat', 'A cat.') == 1 and answers.f1('', 'a') == 1 and answers.f1('', 'cat') == 0
    assert answers.f1('one two two', 'two two three four') == pytest.approx(2 * 2 / 7)


# Natural Questions: five shown, three asked


def test_natural_questions(tmp_path):
    entries = [{'question': f'who {index}', 'answer': [f'Name {index}', f'{index}']} for index in range(8)]
    model = GivenModel(continuations=[' the name 5.', ' 66', ' 7'])
    found = evaluate('nq', tmp_path, model, lines(*map(json.dumps, entries)))
    assert model.asked[0][0].startswith('Q: who 0\nA: Name 0\n\nQ: who 1') and len(model.asked) == 3
    assert model.asked[0][0].endswith('A: Name 4\n\nQ: who 5\nA:')
    assert found == {'exact_match': pytest.approx(200 / 3), 'questions': 3}


# Summaries and translations


def test_sentences_end_with_their_mark_or_their_line():
    assert summarisation.sentences(' One. "Two!" (Three?)\nfour\n\n 5.5 is 3 . x') == [
        'One.', '"Two!"', '(Three?)', 'four', '5.5 is 3 .', 'x',
    ]  # fmt: skip


def test_cnn_dm(tmp_path):
    pytest.importorskip('rouge_score')
    entries = [
        {'article': 'News. ' * 600, 'highlights': 'the cat sat'},
        {'article': 'More.', 'highlights': 'a dog ran\nit barked'},
        {'article': 'End.', 'highlights': 'one two three four'},
    ]
    model = GivenModel(continuations=[' the cat ran', ' It barked. A dog ran! Third. Fourth.', ' four three two one'])
    found = evaluate('cnn-dm', tmp_path, model, lines(*map(json.dumps, entries)))
    prompt, length, stop, top_k = model.asked[0]
    assert prompt.endswith('News. News. News\nTL;DR:') or prompt.endswith('News. News.\nTL;DR:')
    assert len(model.encoder.encode(prompt)) == model.hparams.n_ctx + 1 - 100
    assert (length, stop, top_k) == (100, [], 2)
    # 1: 2 of 3 words, 1 of 2 pairs, a common subsequence of 2 of 3.
    # 2: three sentences kept, "third" too many: 5 words of 6 and of 5; pairs: it-barked a-dog dog-ran of 5 found, of 4
    # expected; the longest common subsequence of the whole is a-dog-ran, of sentences all 5.
    # 3: all words, no pair, a subsequence of 1 of 4.
    assert found.pop('articles') == 3
    assert found == {
        'rouge1': pytest.approx(100 * (2 / 3 + 10 / 11 + 1) / 3),
        'rouge2': pytest.approx(100 * (1 / 2 + 6 / 9 + 0) / 3),
        'rougeL': pytest.approx(100 * (2 / 3 + 6 / 11 + 1 / 4) / 3),
        'rougeLsum': pytest.approx(100 * (2 / 3 + 10 / 11 + 1 / 4) / 3),
    }


@pytest.mark.parametrize('name', ['wmt14-en-fr', 'wmt14-fr-en', 'ntrex-en-fr', 'ntrex-fr-en'])
def test_translation(tmp_path, name):
    pytest.importorskip('sacrebleu')
    english = lines(*(f'shown {index}' for index in range(5)), 'one', 'two', 'three')
    french = lines(*(f'montre {index}' for index in range(5)), 'the cat sat on a mat', 'w x y z', 'p q r s')
    model = GivenModel(continuations=[' the cat sat on the mat', ' w x y z', ' p q r s'])
    found = evaluate(name, tmp_path, model, english, french)
    assert model.asked[0][0].startswith('shown 0 = montre 0\nshown 1 = montre 1\n')
    assert model.asked[0][0].endswith('shown 4 = montre 4\none =') and model.asked[0][1:] == (100, ['\n'], 0)
    # n-grams found of n-grams made: the first sentence 5/6, 3/5, 2/4, 1/3; the others all; no length penalty.
    precisions = (5 + 8) / 14, (3 + 6) / 11, (2 + 4) / 8, (1 + 2) / 5
    assert found == {'bleu': pytest.approx(100 * math.prod(precisions) ** 0.25), 'sentences': 3}
    languages = [file.removesuffix('.txt')[-2:] for file in TASKS[name].files]
    assert languages == name.split('-')[1:]


# Malformed files: the line and the reason

MALFORMED = [
    ('lambada', ['{"text": "two words"}\n{"text": 3}\n'], 'line 2: no object with a str "text"'),
    ('lambada', ['{"text": "two words"}\nnot json\n'], 'line 2: no JSON'),
    ('lambada', ['{"text": "word"}\n'], 'line 1: a passage of less than two words'),
    ('lambada-plain', [b'two words\n\xff\xfe x\n'], 'line 2: not UTF-8 at byte 0 of the line'),
    ('lambada-plain', [''], 'is empty'),
    ('lambada-plain', ['\ufeff'], 'is empty'),
    ('ptb', [b'\xef\xbb\xbfone\r\ntw\xff'], 'line 2: not UTF-8 at byte 2 of the line'),
    ('coqa', ['{"data": [{"story": "x", "questions": [], "answers": []}]}'], 'line 1: no question'),
    ('cbt-cn', ['1 A line .\nno number\n'], 'line 2: no sentence number'),
    ('cbt-cn', ['1 A line .\n2 XXXXX ran .\tcat\t\tdog|hen\n'], 'line 2: no XXXXX in the question, or its answer'),
    ('cbt-cn', ['1 A line .\n'], 'line 1: the last sentence is no question'),
    ('coqa', ['{"data": [{"story": "x"}]}'], 'line 1: not as CoQA 1.0 is laid out'),
    ('coqa', ['{\n"data"\n}'], 'line 3: not as CoQA 1.0 is laid out'),
    ('cnn-dm', ['{"article": "x"}\n'], 'line 1: no object with a str "highlights"'),
    ('winograd', ['<a>\n<b></a>'], 'line 2: no XML'),
    ('winograd', ['<a><schema></schema></a>'], 'schema 1 lacks a pronoun'),
    ('winograd', ['<a></a>'], 'no schema'),
    ('nq', ['{"question": "x", "answer": []}\n'], 'line 1: "answer" is no list of texts'),
    ('nq', ['{"question": "x", "answer": ["y"]}\n'], 'line 1: 1 questions, expected more than 5'),
    ('wmt14-en-fr', ['a\n' * 7, 'b\n' * 6], 'line 6: the file has 6 lines, expected as many as the 7 of'),
    ('enwik8', ['short'], 'the file has 5 bytes, expected the whole 100000000'),
]


@pytest.mark.parametrize(('name', 'contents', 'message'), MALFORMED)
def test_malformed_files_are_refused(tmp_path, name, contents, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        evaluate(name, tmp_path, GivenModel(), *contents)
    assert str(tmp_path) in str(caught.value) and '\n' not in str(caught.value)


# A loaded model


@pytest.fixture(params=['tf', 'litert'])
def loaded(request):
    with gpt2.load('7M', BUNDLED.parent, engine=request.param) as model:
        yield model


def test_a_loaded_model_scores_texts_and_continues_with_what_is_likeliest(loaded):
    encoder = loaded.encoder
    goldens = json.loads((HERE / 'score_goldens.json').read_text())
    model = LanguageModel(loaded.engine, encoder, goldens['stride'], 2)
    text = encoder.decode(encoder.encode(goldens['text'])[:700])
    values = sum(goldens['log_probabilities'][:700])
    assert model.score_texts([text, text], 'test') == (pytest.approx(2 * values, abs=0.05), 1400)
    context = encoder.encode('Once upon a time')
    continuation = encoder.encode(*model.continue_all([context], 12))
    [(_, ranks, _)] = model.score_rows([(context + continuation, len(continuation))])
    assert (ranks == 1).all() and len(ranks) == 12
    stop = [encoder.decode(continuation[3:5])]
    assert list(model.continue_all([context], 12, stop=stop)) == [encoder.decode(continuation[:3])]


def test_continuations_come_in_order_and_are_what_each_prompt_has_by_itself():
    with gpt2.load('7M', BUNDLED.parent, engine='litert') as loaded:
        model = LanguageModel(loaded.engine, loaded.encoder, 1, 1)
        texts = ['Once upon a time there was a ' + 'very ' * n + word for n in (0, 7, 3) for word in 'abcdef']
        prompts = [loaded.encode(text) for text in texts]
        alone = [text for prompt in prompts for text in model.continue_all([prompt], 10, stop=['.'], top_k=2)]
        asked = []
        together = model.continue_all((asked.append(prompt) or prompt for prompt in prompts), 10, stop=['.'], top_k=2)
        assert next(together) == alone[0] and len(asked) == DRAWN_TOGETHER < len(prompts)
        assert list(together) == alone[1:] and len(set(alone)) > 6


class Given:
    """Rows that draw the tokens they were given."""

    def __init__(self, tokens):
        self.tokens = iter(tokens)

    def step(self):
        return [next(self.tokens)]

    def keep(self, rows):
        assert list(rows) == []

    def close(self):
        pass


def test_what_is_continued_ends_at_the_end_of_text_token():
    encoder = get_encoder('7M', BUNDLED.parent)
    drawn = [*encoder.encode(' the end'), encoder.end_of_text, *encoder.encode(' and more')]
    engine = SimpleNamespace(hparams=load_hparams(BUNDLED / 'hparams.json'), start=lambda *_, **__: Given(drawn))
    assert list(LanguageModel(engine, encoder, 1, 1).continue_all([[1]], len(drawn))) == [' the end']


def test_a_window_too_small_for_a_task_is_refused():
    model = GivenModel()
    assert model.room(100) == 413
    with pytest.raises(UsageError, match='n_ctx 512 is too small for a task that draws 300 tokens'):
        model.room(300)
