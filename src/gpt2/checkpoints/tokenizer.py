"""Vocabularies as Hugging Face keeps them: tokenizer.json, or vocab.json and merges.txt with what is added to them."""

import itertools
import json
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gpt2.checkpoints.files import CheckpointError
from gpt2.encoder import END_OF_TEXT, Encoder, VocabularyError, made_tokens, spelt
from gpt2.system.files import open_small, whole_file

ROLES = ('bos_token', 'eos_token', 'unk_token', 'pad_token', 'sep_token', 'cls_token', 'mask_token')
NAMED_TOKENS = (*ROLES, 'additional_special_tokens', 'extra_special_tokens')
FLAGS = ('single_word', 'lstrip', 'rstrip', 'normalized', 'special')  # of added tokens, as tokenizer.json names them
# What our encoder does; a tokenizer.json that says otherwise gives other ids.
OURS: dict[str, dict[Any, dict[str, Any]]] = {
    'normalizer': {None: {}},
    'pre_tokenizer': {'ByteLevel': {'add_prefix_space': False, 'use_regex': True}},
    'model': {
        'BPE': {
            'dropout': None, 'continuing_subword_prefix': '', 'end_of_word_suffix': '', 'byte_fallback': False,
            'ignore_merges': False,
        },
    },
}  # fmt: skip


def read_json(path: str) -> Any:
    """What a JSON file holds. Raises CheckpointError."""
    try:
        with open_small(path) as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); get the file again') from None


def read_object(folder: str, name: str) -> dict:
    """The object of a JSON file, empty where there is no such file. Raises CheckpointError."""
    path = os.path.join(folder, name)
    content = read_json(path) if os.path.lexists(path) else {}
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} is no JSON object; get the file again')
    return content


def read_vocabulary(folder: str, rows: int, ends: list[Any]) -> tuple[Encoder | None, list[str]]:
    """(the vocabulary of a folder, or None if it has none; what a user should know).

    rows: of wte; an added token without one is left out. ends: ids said to be the end token, the
    likeliest first; one that is no added token is passed over. Raises CheckpointError.
    """
    settings = read_object(folder, 'special_tokens_map.json') | read_object(folder, 'tokenizer_config.json')
    try:
        if os.path.lexists(os.path.join(folder, 'tokenizer.json')):
            files = 'tokenizer.json'
            vocabulary, merges, added = from_tokenizer_json(read_object(folder, files))
        elif os.path.lexists(os.path.join(folder, 'vocab.json')):
            files = 'vocab.json and merges.txt'
            vocabulary, merges = read_object(folder, 'vocab.json'), read_merges(folder)
            added = first_and_last(vocabulary, made_tokens(merges))
        else:
            return None, []
        added = added_tokens(folder, settings, vocabulary, added)
        notices = peculiarities(settings, added, rows)
        around = put_around(read_object(folder, files)) if files == 'tokenizer.json' else []
        notices += [f'its tokenizer puts {token} around every text; here only --start does' for token in around]
        ids = {token['content']: token['id'] for token in added if token['id'] < rows}
        named = [ids.get(token_text(settings.get('eos_token'))), ids.get(END_OF_TEXT)]
        ends = [end for end in ends if end in ids.values()] or [end for end in named if end is not None][:1]
        flags = {token['content']: flags_of(token) for token in added if token['id'] < rows}
        named_roles = {role: token_text(settings.get(role)) for role in ROLES if role != 'eos_token'}
        roles = {role: text for role, text in named_roles.items() if text is not None and text in ids}
        return make_encoder(vocabulary, merges, ids, ends, flags, roles), notices
    except VocabularyError as error:
        raise CheckpointError(f'{folder}: {in_their_words(error, files)}') from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f'{folder}: {files} cannot be read ({error!r}); get the file again') from None


def in_their_words(error: VocabularyError, files: str) -> str:
    """An encoder's error with the names of the files that a Hugging Face folder has."""
    ids, _, merges = files.partition(' and ')
    return str(error).replace('encoder.json', ids).replace('vocab.bpe', merges or ids)


def from_tokenizer_json(content: dict) -> tuple[dict, list, list]:
    """(ids, merges, added tokens) of a tokenizer.json. Raises VocabularyError for one that is not as GPT-2's."""
    for part, kinds in OURS.items():
        found = alone(content.get(part) or {})
        kind = found.get('type', 'BPE' if part == 'model' else None)
        if kind not in kinds:
            raise VocabularyError(f"tokenizer.json: its {part} is {kind}, and GPT-2's is {next(iter(kinds))}")
        for name, value in kinds[kind].items():
            if (found.get(name, value) or None) != (value or None):
                raise VocabularyError(f"tokenizer.json: {name} is {found[name]!r}, and GPT-2's is {value!r}")
    model = content['model']
    merges = [tuple(merge.split(' ')) if isinstance(merge, str) else tuple(merge) for merge in model['merges']]
    return model['vocab'], merges, content.get('added_tokens') or []


def put_around(content: dict) -> list[str]:
    """The tokens that a tokenizer.json puts before or after every text."""
    processors = [content.get('post_processor') or {}]
    processors += processors[0].get('processors') or []
    parts = [part for each in processors if each.get('type') == 'TemplateProcessing' for part in each['single']]
    return [part['SpecialToken']['id'] for part in parts if 'SpecialToken' in part]


def alone(part: dict) -> dict:
    """A normalizer or pre-tokenizer without a Sequence around it that holds no other."""
    for name in ('normalizers', 'pretokenizers'):
        if part.get('type') == 'Sequence' and len(part.get(name, [0, 0])) < 2:
            return alone(part[name][0]) if part[name] else {}
    return part


def read_merges(folder: str) -> list[tuple[str, ...]]:
    """The merges of merges.txt, whose first line may be a version."""
    path = os.path.join(folder, 'merges.txt')
    try:
        with open_small(path) as file:
            lines = file.read().split('\n')
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{path} cannot be read ({error}); get the file again') from None
    merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith('#version')]
    if any(len(merge) != 2 for merge in merges):
        raise VocabularyError('vocab.bpe: a line is not two tokens')
    return merges


def first_and_last(vocabulary: dict, made: Collection[str]) -> list[dict]:
    """The tokens that a vocabulary lists before and after all those that bytes and merges make, as added ones."""
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    first = list(itertools.takewhile(lambda token: token not in made, by_id))
    last = list(itertools.takewhile(lambda token: token not in made, reversed(by_id[len(first) :])))
    return [{'content': token, 'id': vocabulary[token], 'special': True} for token in [*first, *reversed(last)]]


def flags_of(token: dict) -> frozenset[str]:
    """Which of FLAGS an added token has."""
    return frozenset(name for name in FLAGS if token.get(name))


def token_text(token: Any) -> str | None:
    """The text of a token as the settings name it: a text, or an object that holds it."""
    return token.get('content') if isinstance(token, dict) else token


def added_tokens(folder: str, settings: dict, vocabulary: dict, listed: list[dict]) -> list[dict]:
    """All added tokens as {id, content, and how they match}: listed ones, those of the other files, and
    those of the vocabulary that the settings name."""
    found = {token['content']: token for token in listed}
    for index, token in (settings.get('added_tokens_decoder') or {}).items():
        found.setdefault(token['content'], token | {'id': int(index)})
    for text, index in read_object(folder, 'added_tokens.json').items():
        found.setdefault(text, {'content': text, 'id': index})
    named = [settings.get(name) or [] for name in NAMED_TOKENS]
    named = [token for tokens in named for token in (tokens if isinstance(tokens, list) else [tokens])]
    for token in [*named, END_OF_TEXT]:
        text, flags = token_text(token), token if isinstance(token, dict) else {}
        if text in vocabulary:
            found.setdefault(text, {'special': True} | flags | {'content': text, 'id': vocabulary[text]})
    return sorted(found.values(), key=lambda token: token['id'])


def peculiarities(settings: dict, added: list[dict], rows: int) -> list[str]:
    """What the tokenizer does and our encoder does not, a sentence each. Raises VocabularyError for what
    would change the ids of every text."""
    if settings.get('add_prefix_space'):
        raise VocabularyError("tokenizer_config.json: add_prefix_space is True, and GPT-2's is False")
    notices = []
    if settings.get('add_bos_token'):
        bos = token_text(settings.get('bos_token'))
        notices.append(f'its tokenizer begins every text with {bos}; here only --start {bos} does')
    for token in added:
        text, index = token['content'], token['id']
        if index >= rows:
            notices.append(f'the token {text!r} is left out: its id is {index}, and wte has {rows} rows')
    return notices


def make_encoder(
    vocabulary: dict, merges: list, added: dict[str, int], ends: Sequence[int],
    flags: Mapping[str, frozenset[str]] | None = None, roles: Mapping[str, str] | None = None,
) -> Encoder:  # fmt: skip
    """The Encoder of ids by token, merges, ids of added tokens by text, and ids of the end tokens. flags, roles: as
    Encoder takes them."""
    made = made_tokens(merges)
    ids = {token: index for token, index in vocabulary.items() if token in made or token not in added}
    owned = set(ids.values())
    for text, index in added.items():
        if index not in owned:
            ids.setdefault(spelt(text), index)
    # The release's programs ask for the end of text by this name.
    if ends:
        ids.setdefault(END_OF_TEXT, ends[0])
    if made.keys() <= ids.keys():
        check_gaps(ids, added)
    return Encoder(ids, merges, added=added, end_of_text=next(iter(ends), None), end_ids=ends, flags=flags, roles=roles)


def check_gaps(ids: Mapping[str, int], added: Mapping[str, int]) -> None:
    """Raise VocabularyError for an added token that leaves ids below it to no token."""
    owned = {*ids.values(), *added.values()}
    for text, index in sorted(added.items(), key=lambda item: item[1]):
        if index >= len(owned):
            free = min(set(range(index)) - owned)
            raise VocabularyError(
                f'the added token {text!r} has the id {index}, and {free} is the id of no token; '
                'this program needs ids without a gap'
            )


def write_vocabulary(folder: str, vocabulary: Encoder, positions: int) -> None:
    """Write the files of a vocabulary, as AutoTokenizer reads them. Raises WriteError."""
    ids = listed_tokens(vocabulary)
    texts = {index: text for text, index in vocabulary.added.items()}
    end = texts[vocabulary.end_of_text] if vocabulary.end_ids else None
    ends = {END_OF_TEXT, *(texts[index] for index in vocabulary.end_ids)}
    roles = {'bos_token': end, 'unk_token': end} | vocabulary.roles | {'eos_token': end}
    files = {
        'vocab.json': ids,
        'tokenizer.json': tokenizer_json(vocabulary, ids, {*ends, *vocabulary.roles.values()}),
        'tokenizer_config.json': {
            'tokenizer_class': 'GPT2Tokenizer', 'add_prefix_space': False, 'errors': vocabulary.errors,
            'model_max_length': positions, **roles,
        },
    }  # fmt: skip
    if others := {text: index for text, index in vocabulary.added.items() if text not in ends and text != end}:
        files['added_tokens.json'] = others
    for name, content in files.items():
        with whole_file(os.path.join(folder, name)) as file:
            json.dump(content, file, ensure_ascii=False)
            file.write('\n')
    with whole_file(os.path.join(folder, 'merges.txt')) as file:
        file.write('\n'.join(['#version: 0.2', *map(' '.join, vocabulary.bpe_ranks), '']))


def listed_tokens(vocabulary: Encoder) -> dict[str, int]:
    """All tokens by id, as vocab.json and tokenizer.json list them: `tokenizers` gives an added token that is not
    among them an id of its own choice. Raises VocabularyError for an added token that is listed as another is."""
    made = made_tokens(vocabulary.bpe_ranks)
    ids = {token: index for token, index in vocabulary.encoder.items() if token in made}
    for text, index in vocabulary.added.items():
        if ids.setdefault(text, index) != index:
            raise VocabularyError(
                f"the added token {text!r} is written in Hugging Face's files as token {ids[text]} is; "
                'they cannot hold both'
            )
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def tokenizer_json(vocabulary: Encoder, ids: dict[str, int], special: set[str]) -> dict:
    """The content of tokenizer.json. special: the added tokens that a decoder may leave out, where nothing is known."""
    unknown = {text: frozenset(['special'] if text in special else []) for text in vocabulary.added}
    flags = unknown | vocabulary.flags
    byte_level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True}
    return {
        'version': '1.0', 'truncation': None, 'padding': None,
        'added_tokens': [
            {'id': index, 'content': text} | {flag: flag in flags[text] for flag in FLAGS}
            for text, index in sorted(vocabulary.added.items(), key=lambda item: item[1])
        ],
        'normalizer': None,
        'pre_tokenizer': byte_level,
        'post_processor': byte_level,
        'decoder': byte_level | {'add_prefix_space': True},
        'model': {
            'type': 'BPE', 'dropout': None, 'unk_token': None, 'continuing_subword_prefix': '',
            'end_of_word_suffix': '', 'fuse_unk': False, 'byte_fallback': False, 'ignore_merges': False,
            'vocab': ids, 'merges': [list(merge) for merge in vocabulary.bpe_ranks],
        },
    }  # fmt: skip
