"""Hugging Face's folders, as transformers itself writes and reads them.

What it wrote once lies in tests/huggingface; where torch and transformers are installed they write more.
"""

import json
import os
import pickle
import random
import shutil
import struct
import sys
import warnings

import numpy as np
import pytest
import reference_numpy
from example_models import BUNDLED, HERE, full_logits

from gpt2.checkpoints import bundle, convert, huggingface, tokenizer
from gpt2.checkpoints.source import load_params, open_source
from gpt2.completion import Completion
from gpt2.encoder import END_OF_TEXT, Encoder, VocabularyError, bytes_to_unicode, read_encoder, spelt, write_encoder
from gpt2.errors import Error

GOLDENS = HERE / 'huggingface'
TINY = GOLDENS / 'tiny'
with open(GOLDENS / 'goldens.json', encoding='utf-8') as goldens_file:
    WANTED = json.load(goldens_file)


@pytest.fixture
def folder(tmp_path):
    """A copy of what transformers wrote, to be changed."""
    return shutil.copytree(TINY, tmp_path / 'tiny')


@pytest.fixture(scope='module')
def theirs():
    """The module that makes models with transformers."""
    pytest.importorskip('torch')
    pytest.importorskip('transformers')
    import transformers_models

    return transformers_models


def our_logits(source, tokens):
    hparams = source.hparams
    return reference_numpy.logits(dict(source.values()), hparams.n_head, hparams.n_layer, tokens)


def change(path, **fields):
    content = json.loads(path.read_text(encoding='utf-8')) | fields
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


def refusal(path):
    with pytest.raises(Error) as caught:
        open_source(str(path))
    message = str(caught.value)
    assert '\n' not in message
    assert str(path) in message
    return message


# What transformers wrote


def test_logits_are_those_of_transformers():
    source = open_source(str(TINY))
    tokens = WANTED['tokens']
    expected = np.array(WANTED['logits'])[:, : source.hparams.n_vocab]
    np.testing.assert_allclose(our_logits(source, tokens)[::7], expected, atol=1e-4)
    computed = full_logits(source.hparams, load_params(source), np.array([tokens], np.int32))[0]
    np.testing.assert_allclose(computed[::7], expected, atol=1e-4)


@pytest.mark.parametrize('text, ids', WANTED['texts'], ids=range(len(WANTED['texts'])))
def test_ids_are_those_of_the_tokenizer(text, ids):
    encoder = open_source(str(TINY)).encoder
    assert encoder.encode(text, special=True) == ids
    assert encoder.decode(ids) == text
    assert max(encoder.encode(text), default=0) < 296


def test_shape_vocabulary_and_what_a_user_should_know():
    source = open_source(str(TINY))
    assert (source.format, source.dtype) == ('huggingface', 'float32')
    assert dict(source.encoder.added) == {END_OF_TEXT: 296, '<|startoftext|>': 297, '<|pad|>': 298, ' spaced': 299}
    assert (len(source.encoder), source.hparams.n_vocab, source.encoder.end_of_text) == (300, 300, 296)
    assert source.value('model/wte').shape == (300, 16)
    [notice] = source.notices
    assert '4 rows of wte belong to no token' in notice


@pytest.mark.parametrize('engine', ['tf', 'litert'])
def test_both_engines_take_the_folder_as_it_is(folder, engine):
    from gpt2 import load

    model = load(str(folder), engine=engine)
    ids = model.encode('the end')
    for _ in range(8):
        ids.append(int(our_logits(model.source, ids)[-1].argmax()))
    assert list(model.complete('the end', length=8, temperature=0).ids) == ids[-8:]
    assert set(model.complete('the', length=15, samples=8, seed=1, temperature=5.0)[0].ids) <= set(range(300))


def test_the_identity_changes_with_a_file(folder):
    before = open_source(str(folder)).identity
    assert open_source(str(folder)).identity == before
    change(folder / 'config.json', scale_attn_by_inverse_layer_idx=True)
    assert open_source(str(folder)).identity != before


# Arithmetic


@pytest.mark.parametrize(
    'fields, parts',
    [
        ({'activation_function': 'gelu'}, ["activation_function is 'gelu'", "'gelu_new'"]),
        ({'activation_function': 'relu'}, ["activation_function is 'relu'"]),
        ({'layer_norm_epsilon': 1e-6}, ['layer_norm_epsilon is 1e-06', '1e-05']),
        ({'n_inner': 32}, ['n_inner is 32', '64']),
        ({'add_cross_attention': True}, ['add_cross_attention is True']),
        ({'quantization_config': {'bits': 4}}, ['quantization_config', "{'bits': 4}"]),
        ({'auto_map': {'AutoModel': 'code.Model'}}, ['auto_map']),
        ({'pruned_heads': {'0': [1]}}, ['pruned_heads']),
        ({'scale_attn_weights': 'no'}, ["scale_attn_weights is 'no'"]),
        ({'n_ctx': 12}, ['n_ctx is 12', 'n_positions 24']),
        ({'model_type': 'llama'}, ["model_type is 'llama'", 'not a GPT-2']),
        ({'model_type': ..., 'architectures': ['BertModel']}, ['BertModel', 'not a GPT-2']),
        ({'model_type': ..., 'architectures': 5}, ['model_type is 5', 'not a GPT-2']),
        ({'model_type': ..., 'architectures': {'GPT2': 1}}, ['not a GPT-2']),
        ({'n_head': 3}, ['n_embd 16 is not a multiple of n_head 3']),
        ({'n_layer': '2'}, ["n_layer is '2'"]),
        ({'n_layer': 10**9}, ['n_layer is 1000000000, and the weights are 28 tensors']),
        ({'tie_word_embeddings': False}, ['tie_word_embeddings is False', 'lm_head.weight']),
        ({'vocab_size': 100}, ['wte.weight', '[304, 16]', '[100, 16]']),
        ({'hidden_size': 32}, ['expected', '32']),
    ],
)
def test_other_arithmetic_is_refused_by_name_and_value(folder, fields, parts):
    change(folder / 'config.json', **fields)
    message = refusal(folder)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    'fields', [{'n_inner': 64}, {'model_type': ...}, {'n_ctx': 1024}, {'activation_function': ...}]
)
def test_the_same_in_other_words_is_read(folder, fields):
    change(folder / 'config.json', **fields)
    assert open_source(str(folder)).digest() == open_source(str(TINY)).digest()


# A matrix of what transformers writes


def saved(theirs, folder, model, added=(), **how):
    tokenizer = theirs.make_tokenizer(folder, added)
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder), **how)
    return folder


TOKENS = [296, *range(70, 90)]


@pytest.mark.parametrize(
    'settings',
    [
        {'scale_attn_by_inverse_layer_idx': True},
        {'scale_attn_weights': False},
        {'scale_attn_weights': False, 'scale_attn_by_inverse_layer_idx': True},
        {'reorder_and_upcast_attn': True},
        {'activation_function': 'gelu_pytorch_tanh'},
        {'activation_function': 'gelu_fast'},
        {'n_inner': 64},
    ],
)
def test_settings_that_are_honoured(theirs, tmp_path, settings):
    model = theirs.make_model(**settings)
    source = open_source(str(saved(theirs, tmp_path / 'model', model)))
    np.testing.assert_allclose(our_logits(source, TOKENS), theirs.logits(model, TOKENS), atol=1e-4)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_16_bits_are_widened_exactly(theirs, tmp_path, dtype):
    import torch

    model = theirs.make_model().to(getattr(torch, dtype))
    source = open_source(str(saved(theirs, tmp_path / 'model', model)))
    assert source.dtype == dtype
    wte = model.transformer.wte.weight.detach().float().numpy()
    assert (source.value('model/wte') == wte).all()
    np.testing.assert_allclose(our_logits(source, TOKENS), theirs.logits(model, TOKENS), atol=1e-4)


def test_shards(theirs, tmp_path):
    model = theirs.make_model()
    folder = saved(theirs, tmp_path / 'model', model, max_shard_size='20KB')
    assert len(list(folder.glob('model-*.safetensors'))) > 2
    source = open_source(str(folder))
    np.testing.assert_allclose(our_logits(source, TOKENS), theirs.logits(model, TOKENS), atol=1e-4)
    shard = sorted(folder.glob('model-*.safetensors'))[1]
    shard.unlink()
    assert f'{shard} is not there' in refusal(folder)


def test_names_without_prefix(theirs, tmp_path):
    model = theirs.make_model()
    folder = saved(theirs, tmp_path / 'model', model.transformer)
    source = open_source(str(folder))
    np.testing.assert_allclose(our_logits(source, TOKENS), theirs.logits(model, TOKENS), atol=1e-4)


def torch_saved(theirs, folder, model, **how):
    """A folder with a pytorch_model.bin, as transformers wrote it before it wrote safetensors."""
    import torch

    saved(theirs, folder, model)
    (folder / 'model.safetensors').unlink()
    buffers = {'bias': torch.ones(1, 1, 24, 24), 'masked_bias': torch.tensor(-1e4)}
    buffers = {f'transformer.h.0.attn.{name}': value for name, value in buffers.items()}
    torch.save({**model.state_dict(), **buffers}, folder / 'pytorch_model.bin', **how)
    return folder


@pytest.mark.parametrize('zipped', [True, False])
def test_files_of_pytorch(theirs, tmp_path, zipped):
    model = theirs.make_model()
    folder = torch_saved(theirs, tmp_path / 'model', model, _use_new_zipfile_serialization=zipped)
    source = open_source(str(folder))
    np.testing.assert_allclose(our_logits(source, TOKENS), theirs.logits(model, TOKENS), atol=1e-4)


def test_a_head_of_its_own_is_refused(theirs, tmp_path):
    import torch

    model = theirs.make_model(tie_word_embeddings=False)
    folder = saved(theirs, tmp_path / 'model', model)
    assert 'lm_head.weight is another matrix than wte.weight' in refusal(folder)
    with torch.no_grad():
        model.lm_head.weight.copy_(model.transformer.wte.weight)
    model.save_pretrained(str(folder))
    np.testing.assert_allclose(our_logits(open_source(str(folder)), TOKENS), theirs.logits(model, TOKENS), atol=1e-4)


@pytest.mark.parametrize(
    'added', [[], ['<|startoftext|>', '<|pad|>', '[SEP]'], ['\n', ' in', 'the', '<|pad'], ['ß', '漢字', 'a b']]
)
def test_ids_of_2000_texts(theirs, tmp_path, added):
    tokenizer = theirs.make_tokenizer(tmp_path / 'model', added)
    tokenizer.save_pretrained(str(tmp_path / 'model'))
    theirs.make_model(len(tokenizer)).save_pretrained(str(tmp_path / 'model'))
    encoder = open_source(str(tmp_path / 'model')).encoder
    assert len(encoder) == len(tokenizer)
    for text in theirs.random_texts(2000, added):
        ids = tokenizer.encode(text)
        assert encoder.encode(text, special=True) == ids
        # Not the text, where an added token is spelt as the vocabulary spells a byte: theirs loses it too.
        assert encoder.decode(ids) == tokenizer.decode(ids)


def test_vocab_json_and_merges_txt(theirs, tmp_path):
    folder = saved(theirs, tmp_path / 'model', theirs.make_model(theirs.PLAIN + 2))
    (folder / 'tokenizer.json').unlink()
    (folder / 'tokenizer_config.json').unlink()
    theirs.write_plain_vocabulary(folder)
    (folder / 'added_tokens.json').write_text('{"<|pad|>": 297, "<|a|>": 298}')
    encoder = open_source(str(folder)).encoder
    assert encoder.added == {END_OF_TEXT: 296, '<|pad|>': 297, '<|a|>': 298}
    assert encoder.encode('the<|pad|>', special=True)[-1] == 297


# Vocabularies


def edit_tokenizer(folder, edit):
    path = folder / 'tokenizer.json'
    content = json.loads(path.read_text(encoding='utf-8'))
    edit(content)
    path.write_text(json.dumps(content), encoding='utf-8')


@pytest.mark.parametrize(
    'edit, part',
    [
        (lambda c: c.update(normalizer={'type': 'NFC'}), 'normalizer is NFC'),
        (lambda c: c.update(pre_tokenizer={'type': 'Whitespace'}), 'pre_tokenizer is Whitespace'),
        (lambda c: c['pre_tokenizer'].update(add_prefix_space=True), 'add_prefix_space is True'),
        (lambda c: c['pre_tokenizer'].update(use_regex=False), 'use_regex is False'),
        (lambda c: c['model'].update(type='Unigram'), 'model is Unigram'),
        (lambda c: c['model'].update(ignore_merges=True), 'ignore_merges is True'),
        (lambda c: c['model'].update(end_of_word_suffix='</w>'), 'end_of_word_suffix'),
        (lambda c: c['model']['merges'].pop(), "tokenizer.json has the token"),
        (lambda c: c['model']['vocab'].pop('Ġt'), 'ids are not each of 0 to 298 once'),
        (lambda c: c.pop('model'), 'tokenizer.json cannot be read'),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(folder, edit, part):
    edit_tokenizer(folder, edit)
    assert part in refusal(folder)


def test_an_end_token_of_its_own(folder):
    change(folder / 'generation_config.json', eos_token_id=[298, 296])
    assert open_source(str(folder)).encoder.end_of_text == 298


def test_an_end_token_that_is_an_ordinary_one_is_passed_over(folder):
    """The default of transformers' configuration, 50256, stays where a vocabulary is another."""
    for name in ('generation_config.json', 'config.json'):
        change(folder / name, eos_token_id=100)
    change(folder / 'tokenizer_config.json', eos_token='<|pad|>')
    assert open_source(str(folder)).encoder.end_of_text == 298


def test_a_token_without_a_row_is_left_out(folder):
    edit_tokenizer(folder, lambda c: c['added_tokens'].append({'id': 304, 'content': '[PAD]'}))
    edit_tokenizer(folder, lambda c: c['added_tokens'].extend({'id': i, 'content': f'[{i}]'} for i in range(300, 304)))
    source = open_source(str(folder))
    assert len(source.encoder) == source.hparams.n_vocab == 304
    [notice] = source.notices
    assert "'[PAD]' is left out" in notice


def test_a_vocabulary_without_our_end_of_text(folder, tmp_path):
    def rename(content):
        content['model']['vocab'].pop(END_OF_TEXT, None)
        content['added_tokens'][0]['content'] = '</s>'

    edit_tokenizer(folder, rename)
    change(folder / 'tokenizer_config.json', eos_token='</s>', bos_token='</s>', unk_token='</s>')
    source = open_source(str(folder))
    assert source.encoder.decode([296]) == '</s>'
    assert source.encoder.end_of_text == source.encoder.encoder[END_OF_TEXT] == 296
    assert 296 not in source.encoder.encode(END_OF_TEXT, special=True)
    bundle.write(str(tmp_path / 'release'), source)
    again = open_source(str(tmp_path / 'release')).encoder
    assert (again.decode([296]), again.end_of_text, again.added) == ('</s>', 296, source.encoder.added)


# Bad input


def test_a_missing_tensor(folder):
    change(folder / 'config.json', n_layer=3)
    assert 'has no tensor h.2.ln_1.weight, expected [16]' in refusal(folder)


def test_a_tensor_that_is_not_ours(folder):
    change(folder / 'config.json', n_layer=1)
    assert "is no tensor of GPT-2's" in refusal(folder)


def rewrite(folder, data):
    (folder / 'model.safetensors').write_bytes(data)


def test_damaged_safetensors(folder):
    data = (folder / 'model.safetensors').read_bytes()
    for damaged in (b'', data[:4], data[:100], data[:-5], struct.pack('<Q', 10**18) + data[8:], b'\0' * 100):
        rewrite(folder, damaged)
        assert 'model.safetensors cannot be read' in refusal(folder)


def test_a_header_of_tensors_that_are_too_large(folder):
    header = json.dumps({'wte.weight': {'dtype': 'F32', 'shape': [10**18], 'data_offsets': [0, 4 * 10**18]}}).encode()
    rewrite(folder, struct.pack('<Q', len(header)) + header)
    assert 'model.safetensors cannot be read' in refusal(folder)


@pytest.mark.parametrize('name', ['/etc/passwd', '../model.safetensors', '..', '.', '', '.hidden'])
def test_an_index_that_leaves_the_folder(folder, name):
    (folder / 'model.safetensors').unlink()
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': {'wte.weight': name}}))
    assert 'has no weight_map of tensors and files beside it' in refusal(folder)


def test_no_weights(folder):
    (folder / 'model.safetensors').unlink()
    assert 'has no weights' in refusal(folder)


def in_pytorch_s_file(folder, change):
    import torch
    from safetensors.torch import load_file

    tensors = load_file(str(folder / 'model.safetensors'))
    (folder / 'model.safetensors').unlink()
    torch.save(change(torch, tensors), folder / 'pytorch_model.bin')


def test_parameters_that_are_trained_are_read(theirs, folder):
    digest = open_source(str(folder)).digest()
    in_pytorch_s_file(folder, lambda torch, tensors: {name: torch.nn.Parameter(v) for name, v in tensors.items()})
    assert open_source(str(folder)).digest() == digest


@pytest.mark.parametrize(
    ('change', 'part'),
    [
        (lambda torch, tensors: {'transformer.wpe.weight': torch.zeros(24, 16).to_sparse()}, 'wpe.weight'),
        (lambda torch, tensors: {'transformer.wpe.weight': torch.empty(24, 16, device='meta')}, 'wpe.weight'),
        (lambda torch, tensors: {'transformer.wte.weight': torch.zeros(1).expand(10**10, 16)}, 'wte.weight'),
        (lambda torch, tensors: {1: torch.zeros(2)}, 'holds no tensors by name'),
        (lambda torch, tensors: {'transformer.wpe.weight': 5}, 'holds no tensors by name'),
    ],
    ids=['sparse', 'meta', 'strided', 'number', 'no tensor'],
)
def test_tensors_without_values_are_refused(theirs, folder, change, part):
    in_pytorch_s_file(folder, lambda torch, tensors: tensors | change(torch, tensors))
    assert part in refusal(folder)


def test_a_folder_whose_name_is_no_text(tmp_path):
    path = os.path.join(tmp_path, os.fsdecode(b'caf\xe9'))
    shutil.copytree(TINY, path)
    huggingface.write(str(tmp_path / 'mine'), open_source(path))
    assert '# caf\ufffd\n' in (tmp_path / 'mine' / 'README.md').read_text(encoding='utf-8')


class Code:
    def __reduce__(self):
        return open, (str(Code.path), 'w')


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_with_code_in_it_is_not_run(theirs, folder, tmp_path, zipped):
    import torch

    Code.path = tmp_path / 'executed'
    (folder / 'model.safetensors').unlink()
    torch.save({'wte.weight': Code()}, folder / 'pytorch_model.bin', _use_new_zipfile_serialization=zipped)
    assert 'it holds more than tensors and plain values, which could be code' in refusal(folder)
    assert not Code.path.exists()
    (folder / 'pytorch_model.bin').write_bytes(pickle.dumps(Code()))
    refusal(folder)
    assert not Code.path.exists()


def test_without_torch_the_line_says_what_to_do(folder, monkeypatch):
    (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert 'pip install torch' in refusal(folder)


def test_without_safetensors_the_line_says_what_to_do(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    assert 'pip install -r requirements-convert.txt' in refusal(folder)


@pytest.mark.parametrize('name', ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'generation_config.json'])
@pytest.mark.parametrize('content', [b'', b'[]', b'\xff', b'{"a": '])
def test_a_damaged_json(folder, name, content):
    (folder / name).write_bytes(content)
    assert name in refusal(folder)


# Writing


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """The bundled model as we write it for transformers."""
    path = tmp_path_factory.mktemp('written') / 'mine'
    huggingface.write(str(path), open_source(str(BUNDLED)))
    return path


def test_files_that_are_written(written):
    names = ['README.md', 'config.json', 'generation_config.json', 'merges.txt', 'model.safetensors', 'tokenizer.json',
             'tokenizer_config.json', 'vocab.json']  # fmt: skip
    assert sorted(path.name for path in written.iterdir()) == names
    assert json.loads((written / 'vocab.json').read_text()) == json.loads((BUNDLED / 'encoder.json').read_text())
    assert (written / 'merges.txt').read_bytes() == (BUNDLED / 'vocab.bpe').read_bytes()


def test_what_is_written_is_read_again(written):
    ours, again = open_source(str(BUNDLED)), open_source(str(written))
    assert again.digest() == ours.digest()
    assert again.hparams == ours.hparams
    assert (again.encoder.encoder, again.encoder.bpe_ranks) == (ours.encoder.encoder, ours.encoder.bpe_ranks)
    assert again.notices == ()


def test_added_tokens_are_written_and_read_again(tmp_path):
    source = open_source(str(TINY))
    huggingface.write(str(tmp_path / 'mine'), source, 'float16')
    again = open_source(str(tmp_path / 'mine'))
    assert (again.encoder.added, again.dtype, again.hparams) == (source.encoder.added, 'float16', source.hparams)
    for text, ids in WANTED['texts']:
        assert again.encoder.encode(text, special=True) == ids


def test_transformers_loads_it_without_a_warning(theirs, written, caplog, capfd):
    from transformers import AutoTokenizer, GPT2LMHeadModel

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model, report = GPT2LMHeadModel.from_pretrained(str(written), output_loading_info=True)
        reader = AutoTokenizer.from_pretrained(str(written))
    assert not any(report.values())
    assert caplog.records == []
    assert 'arning' not in capfd.readouterr().err
    encoder = open_source(str(written)).encoder
    assert len(reader) == len(encoder)
    for text in theirs.random_texts(300):
        assert reader.encode(text) == encoder.encode(text, special=True)
    assert reader.eos_token_id == model.generation_config.eos_token_id == encoder.end_of_text


def test_transformers_continues_greedily_as_we_do(theirs, written):
    import torch
    from transformers import GPT2LMHeadModel

    from gpt2 import load

    model = load('7M', engine='tf')
    prompt = model.encode('Once upon a time there was a little')
    ours = model.complete('Once upon a time there was a little', length=100, temperature=0).ids
    theirs_model = GPT2LMHeadModel.from_pretrained(str(written))
    out = theirs_model.generate(torch.tensor([prompt]), max_new_tokens=100, do_sample=False, eos_token_id=None)
    assert out[0, len(prompt) :].tolist() == list(ours)


def test_transformers_reads_added_tokens_as_we_wrote_them(theirs, tmp_path):
    from transformers import AutoTokenizer

    huggingface.write(str(tmp_path / 'mine'), open_source(str(TINY)))
    read = AutoTokenizer.from_pretrained(str(tmp_path / 'mine'))
    for text, ids in WANTED['texts']:
        assert read.encode(text) == ids


def vocabulary_with_added(places):
    """An Encoder of bytes, two merges, and added tokens at the ids that places give them."""
    tokens = [*bytes_to_unicode().values(), 'th', 'the']
    free = (index for index in range(len(tokens) + len(places)) if index not in places.values())
    ids = dict(zip(tokens, free)) | {spelt(text): index for text, index in places.items()}
    ids.setdefault(END_OF_TEXT, next(iter(places.values())))
    return Encoder(ids, [('t', 'h'), ('th', 'e')], added=dict(places), end_of_text=next(iter(places.values())))


@pytest.mark.parametrize(
    'places',
    [{END_OF_TEXT: 0}, {END_OF_TEXT: 100, '<|pad|>': 3, '<s>': 259}, {'<s>': 0, '</s>': 1, ' x': 150}, {'</s>': 258}],
)
@pytest.mark.parametrize('through', ['huggingface', 'release'])
def test_tokenizers_keeps_the_ids_of_added_tokens_wherever_they_stand(tmp_path, places, through):
    tokenizers = pytest.importorskip('tokenizers')
    encoder = vocabulary_with_added(places)
    if through == 'release':
        write_encoder(tmp_path, encoder)
        encoder = read_encoder(tmp_path)
    tokenizer.write_vocabulary(str(tmp_path), encoder, 10)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
    ids = {text: theirs.token_to_id(text) for text in places}
    assert (ids, theirs.get_vocab_size()) == (places, len(encoder))
    text = 'the cat' + ' the '.join(places) + '\n'
    assert theirs.encode(text).ids == encoder.encode(text, special=True)
    assert all(theirs.id_to_token(index) == token for token, index in encoder.owners() if token not in places
               and spelt(token) == token)  # fmt: skip
    again, _ = tokenizer.read_vocabulary(str(tmp_path), len(encoder), [encoder.end_of_text])
    assert again.decoder == encoder.decoder


def test_an_added_token_that_is_listed_as_another_is_refused(tmp_path):
    encoder = vocabulary_with_added({END_OF_TEXT: 258, spelt('é'): 259})
    encoder = Encoder(encoder.encoder | {spelt('é'): 260}, [*encoder.bpe_ranks, tuple(spelt('é'))], added=encoder.added)
    with pytest.raises(VocabularyError, match=r"the added token .Ã©. .* as token 260 is"):
        tokenizer.write_vocabulary(str(tmp_path), encoder, 10)
    assert list(tmp_path.iterdir()) == []


MATCHING = {
    '<mask>': {'lstrip', 'rstrip', 'special'}, 'cat': {'single_word', 'normalized'}, ' in': {'rstrip'},
    '<l>': {'lstrip'}, 'in<l': {'normalized'}, 'at': {'single_word', 'lstrip', 'special'}, '\n\n': {'special'},
}  # fmt: skip


@pytest.mark.parametrize('seed', range(3))
def test_added_tokens_match_as_their_flags_say(tmp_path, seed):
    tokenizers = pytest.importorskip('tokenizers')
    places = {END_OF_TEXT: 258} | {text: 259 + number for number, text in enumerate(MATCHING)}
    plain = vocabulary_with_added(places)
    flags = {text: frozenset(found) for text, found in MATCHING.items()}
    encoder = Encoder(plain.encoder, list(plain.bpe_ranks), added=places, flags=flags)
    tokenizer.write_vocabulary(str(tmp_path), encoder, 10)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
    again, notices = tokenizer.read_vocabulary(str(tmp_path), len(encoder), [258])
    assert ({text: again.flags[text] for text in MATCHING}, notices) == (flags, [])
    generator = random.Random(seed)
    pieces = [*MATCHING, *MATCHING, *' _1é\u0301\u200d\x1c\u3000\tab', '  ', 'in', '漢', "'s"]
    for _ in range(1000):
        text = ''.join(generator.choices(pieces, k=generator.randrange(12)))
        for each in (encoder, again):
            assert each.encode(text, special=True) == theirs.encode(text).ids, repr(text)


def several_ends(folder):
    """The folder with two end tokens, and other tokens by what they are for."""
    change(folder / 'generation_config.json', eos_token_id=[298, 296], bos_token_id=297, pad_token_id=298)
    settings = {'bos_token': '<|startoftext|>', 'pad_token': '<|pad|>', 'mask_token': ' spaced', 'eos_token': '<|pad|>'}
    change(folder / 'tokenizer_config.json', **settings)
    return open_source(str(folder))


@pytest.mark.parametrize('to', ['huggingface', 'release'])
def test_end_tokens_and_others_are_kept(folder, tmp_path, to):
    edit_tokenizer(folder, lambda c: c['added_tokens'][-1].update(special=True))
    source = several_ends(folder)
    assert source.encoder.end_ids == (298, 296)
    done = convert.convert(source, str(tmp_path / 'mine'), to)
    again = open_source(done.destination).encoder
    assert (again.end_ids, again.end_of_text) == ((298, 296), 298)
    lost = {'mask_token', 'unk_token'} if to == 'release' else set()
    assert {role: text for role, text in source.encoder.roles.items() if role not in lost} | again.roles == again.roles
    generation = json.loads((tmp_path / 'mine' / 'generation_config.json').read_text())
    assert generation == {'eos_token_id': [298, 296], 'bos_token_id': 297, 'pad_token_id': 298}
    [*notices] = done.notices
    assert any("mask_token ' spaced'" in notice for notice in notices) == (to == 'release')
    assert any("' spaced' is a special token no longer" in notice for notice in notices) == (to == 'release')


@pytest.mark.parametrize('route', [['huggingface'], ['release', 'huggingface']])
def test_special_tokens_stay_special(folder, tmp_path, route):
    def edit(content):
        for token in content['added_tokens']:
            token['special'] = token['content'] != ' spaced'

    edit_tokenizer(folder, edit)
    source = several_ends(folder)
    for to in route:
        source = open_source(convert.convert(source, str(tmp_path / to), to).destination)
    flags = {text for text, found in source.encoder.flags.items() if 'special' in found}
    assert flags == {END_OF_TEXT, '<|startoftext|>', '<|pad|>'}


def test_flags_that_a_layout_cannot_hold_are_named(folder, tmp_path):
    edit_tokenizer(folder, lambda c: c['added_tokens'][-1].update(lstrip=True))
    source = open_source(str(folder))
    assert 'lstrip' in source.encoder.flags[' spaced']
    for to, named in (('release', True), ('huggingface', False)):
        notices = convert.convert(source, str(tmp_path / to), to).notices
        assert any("lstrip of ' spaced'" in notice for notice in notices) == named
    assert 'lstrip' in open_source(str(tmp_path / 'huggingface')).encoder.flags[' spaced']


def test_stop_at_end_stops_at_any(folder):
    encoder = several_ends(folder).encoder
    for index in (298, 296):
        completion = Completion(encoder, 1, stop_at_end=True)
        completion.add(index)
        assert completion.finish_reason == 'end_of_text'


def test_a_vocabulary_without_an_end_is_read_and_refused_where_one_is_needed(folder, tmp_path):
    def rename(content):
        content['added_tokens'][0]['content'] = '<s>'
        content['model']['vocab']['<s>'] = content['model']['vocab'].pop(END_OF_TEXT)

    edit_tokenizer(folder, rename)
    for name in ('config.json', 'generation_config.json'):
        change(folder / name, eos_token_id=..., bos_token_id=...)
    change(folder / 'tokenizer_config.json', eos_token=..., bos_token='<s>', unk_token=...)
    source = open_source(str(folder))
    assert source.encoder.end_ids == ()
    with pytest.raises(VocabularyError, match='no token that ends a text'):
        Completion(source.encoder, 1, stop_at_end=True)
    with pytest.raises(VocabularyError, match="no token that ends a text, which the release's layout needs"):
        convert.convert(source, str(tmp_path / 'release'), 'release')
    done = convert.convert(source, str(tmp_path / 'mine'), 'huggingface')
    again = open_source(done.destination).encoder
    assert (again.end_ids, again.added, again.roles['bos_token']) == ((), source.encoder.added, '<s>')


def test_an_id_of_no_token_below_an_added_one_is_named(folder):
    edit_tokenizer(folder, lambda c: c['added_tokens'].append({'id': 302, 'content': '<x>', 'special': True}))
    assert "the added token '<x>' has the id 302, and 300 is the id of no token" in refusal(folder)


def test_a_byte_without_a_token_is_named(folder):
    edit_tokenizer(folder, lambda c: c['model']['vocab'].update({'\0': c['model']['vocab'].pop('Ā')}))
    assert 'the byte 0x00; this program needs one for each byte' in refusal(folder)


@pytest.mark.parametrize(
    'edit',
    [
        lambda c: c.update(normalizer={'type': 'Sequence', 'normalizers': []}),
        lambda c: c.update(pre_tokenizer={'type': 'Sequence', 'pretokenizers': [c['pre_tokenizer']]}),
    ],
)
def test_a_sequence_of_one_is_that_one(folder, edit):
    edit_tokenizer(folder, edit)
    for text, ids in WANTED['texts']:
        assert open_source(str(folder)).encoder.encode(text, special=True) == ids
        break


def test_a_sequence_of_two_is_refused(folder):
    both = [{'type': 'NFC'}, {'type': 'NFD'}]
    edit_tokenizer(folder, lambda c: c.update(normalizer={'type': 'Sequence', 'normalizers': both}))
    assert 'normalizer is Sequence' in refusal(folder)


def test_tokens_listed_before_the_bytes_are_added_ones(tmp_path):
    first = ['<s>', '<pad>', '</s>', '<unk>', END_OF_TEXT]
    tokens = [*first, *bytes_to_unicode().values(), 'th', '<last>']
    (tmp_path / 'vocab.json').write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (tmp_path / 'merges.txt').write_text('#version: 0.2\nt h\n')
    encoder, notices = tokenizer.read_vocabulary(str(tmp_path), len(tokens), [])
    assert (list(encoder.added), notices) == ([*first, '<last>'], [])
    assert encoder.encode('<s>th', special=True) == [0, tokens.index('th')]


def test_a_tokenizer_that_begins_every_text_is_said(folder):
    special = {'<|pad|>': {'id': '<|pad|>', 'ids': [298], 'tokens': ['<|pad|>']}}
    single = [{'SpecialToken': {'id': '<|pad|>', 'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}}]
    template = {'type': 'TemplateProcessing', 'single': single, 'pair': single, 'special_tokens': special}
    edit_tokenizer(folder, lambda c: c.update(post_processor=template))
    assert 'its tokenizer puts <|pad|> around every text; here only --start does' in open_source(str(folder)).notices


# The release's layout, with tokens added


def test_added_tokens_in_the_release_s_layout(tmp_path):
    source = open_source(str(TINY))
    bundle.write(str(tmp_path / 'mine'), source)
    again = open_source(str(tmp_path / 'mine'))
    assert again.digest() == source.digest()
    assert again.encoder.added == source.encoder.added
    for text, ids in WANTED['texts']:
        assert again.encoder.encode(text, special=True) == ids
    encoder = json.loads((tmp_path / 'mine' / 'encoder.json').read_text())
    assert encoder[spelt(' spaced')] == 299  # which the release's reader can decode
    assert list(encoder)[-4] == END_OF_TEXT
