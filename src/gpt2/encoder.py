"""Byte-level byte-pair encoding: text to token ids and back (Radford et al. 2019, section 2.2).

Text is split into pre-tokens by a pattern; the UTF-8 bytes of each become printable characters;
neighbours are merged, lowest rank first, until no merge applies; what remains are tokens.
"""

import functools
import heapq
import json
import os
from itertools import chain, pairwise

import regex

from gpt2.errors import Error

# Contractions, letters, digits, other marks (each with at most one space before), white space.
PRETOKEN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
END_OF_TEXT = '<|endoftext|>'
CACHE_ENTRIES = 2**17  # of English, 26 MB when full
LONGEST_CACHED = 64  # characters; longer pre-tokens hardly ever come twice


class VocabularyError(Error):
    """A vocabulary that is missing, unreadable or does not fit its merges."""


@functools.lru_cache
def bytes_to_unicode():
    """Map each byte to a printable character, so that merges can be kept in a text file.

    Printable ASCII and Latin-1 characters stand for themselves; the other 68 bytes, in order,
    are U+0100 and upward. Returns a dict from int (0-255) to a string of one character.
    """
    printable = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [*map(chr, printable), *(chr(0x100 + index) for index in range(len(others)))]
    return dict(zip(printable + others, characters))


def get_pairs(word):
    """The set of neighbouring pairs in a word, a sequence of symbols."""
    return set(pairwise(word))


def utf8(text):
    """UTF-8 bytes of any Python string.

    A surrogate that stands for an undecodable byte (PEP 383: what a terminal or a file name
    gives) becomes that byte again; any other lone surrogate is encoded like a character.
    """
    try:
        return text.encode('utf-8')
    except UnicodeEncodeError:
        return b''.join(
            character.encode('utf-8', 'surrogateescape' if '\udc80' <= character <= '\udcff' else 'surrogatepass')
            for character in text
        )


def merge(symbols, ranks):
    """Merge neighbours, lowest rank first and leftmost among equals, until none has a rank.

    Merges must come in the order they were learnt, as in any trained vocabulary: a pair before
    those that its result is part of. A heap over a linked list: n log n in the length of the
    word, where rescanning after every merge would take minutes for 100,000 letters without a space.
    """
    symbols = list(symbols)
    length = len(symbols)
    following = list(range(1, length + 1))
    previous = list(range(-1, length - 1))
    heap = [(ranks[pair], left) for left, pair in enumerate(pairwise(symbols)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, left = heapq.heappop(heap)
        right = following[left]
        # A symbol that was merged away is None; one that has grown makes another pair.
        if right >= length or ranks.get((symbols[left], symbols[right])) != rank:
            continue
        symbols[left] += symbols[right]
        symbols[right] = None
        after = following[left] = following[right]
        if after < length:
            previous[after] = left
            rank = ranks.get((symbols[left], symbols[after]))
            if rank is not None:
                heapq.heappush(heap, (rank, left))
        before = previous[left]
        if before >= 0:
            rank = ranks.get((symbols[before], symbols[left]))
            if rank is not None:
                heapq.heappush(heap, (rank, before))
    return [symbol for symbol in symbols if symbol is not None]


class PretokenCache(dict):
    """From pre-token to its ids; encodes what it lacks, and is emptied when full."""

    def __init__(self, encode):
        self.encode = encode

    def __missing__(self, pretoken):
        ids = self.encode(pretoken)
        if len(pretoken) <= LONGEST_CACHED:
            if len(self) >= CACHE_ENTRIES:
                self.clear()
            self[pretoken] = ids
        return ids


class Encoder:
    """Turns text into token ids and back.

    encoder: dict from token (in the characters of bytes_to_unicode) to id.
    bpe_merges: pairs of tokens in rank order.
    errors: how decode treats bytes that are not UTF-8; a codec error handler's name.
    Raises VocabularyError when encoder and merges do not belong together.
    """

    def __init__(self, encoder, bpe_merges, errors='replace'):
        bpe_merges = [tuple(pair) for pair in bpe_merges]
        check_vocabulary(encoder, bpe_merges)
        self.encoder = encoder
        self.decoder = {index: token for token, index in encoder.items()}
        self.errors = errors
        self.byte_encoder = bytes_to_unicode()
        self.byte_decoder = {character: byte for byte, character in self.byte_encoder.items()}
        self.bpe_ranks = {pair: rank for rank, pair in enumerate(bpe_merges)}
        self.cache = PretokenCache(self.encode_pretoken)

    def bpe(self, token):
        """Tokens of one pre-token, both in the characters of bytes_to_unicode, joined by spaces."""
        return ' '.join(merge(token, self.bpe_ranks))

    def encode_pretoken(self, pretoken):
        word = [self.byte_encoder[byte] for byte in utf8(pretoken)]
        return [self.encoder[token] for token in merge(word, self.bpe_ranks)]

    def encode(self, text):
        """Token ids, a list of int, of any string; the end-of-text id is never among them."""
        return list(chain.from_iterable(map(self.cache.__getitem__, PRETOKEN.findall(text))))

    def decode_bytes(self, tokens):
        """The bytes that token ids stand for. Raises ValueError for an id outside the vocabulary."""
        try:
            text = ''.join([self.decoder[token] for token in tokens])
        except KeyError as error:
            raise ValueError(f'token id {error.args[0]} is outside the vocabulary of {len(self.decoder)}') from None
        return bytes([self.byte_decoder[character] for character in text])

    def decode(self, tokens):
        """Text of token ids; bytes that are not UTF-8 are treated as self.errors says."""
        return self.decode_bytes(tokens).decode('utf-8', errors=self.errors)


def check_vocabulary(encoder, bpe_merges):
    """Raise VocabularyError unless the tokens are just those that bytes, merges and the end of text make."""
    if sorted(encoder.values()) != list(range(len(encoder))):
        raise VocabularyError(f'encoder.json: ids are not each of 0 to {len(encoder) - 1} once')
    if len(set(bpe_merges)) < len(bpe_merges):
        raise VocabularyError('vocab.bpe: a merge comes twice')
    merged = (first + second for first, second in bpe_merges)
    made = dict.fromkeys([*bytes_to_unicode().values(), *merged, END_OF_TEXT])
    remedy = 'one of the two files is damaged or of another model'
    for token in made:
        if token not in encoder:
            raise VocabularyError(f'encoder.json has no id for {token!r}, which vocab.bpe makes: {remedy}')
    for token in encoder:
        if token not in made:
            raise VocabularyError(f'encoder.json has the token {token!r}, which vocab.bpe does not make: {remedy}')


def read_vocabulary_file(path, parse):
    try:
        with open(path, encoding='utf-8') as file:
            return parse(file)
    except FileNotFoundError:
        raise VocabularyError(f'{path} is not there; download the model again') from None
    except (OSError, ValueError, RecursionError) as error:
        raise VocabularyError(f'{path} cannot be read ({error}); download the model again') from None


def parse_merges(file):
    """Pairs of tokens from vocab.bpe: a version line, then one merge a line."""
    merges = [tuple(line.split()) for line in file.read().split('\n')[1:] if line]
    for number, pair in enumerate(merges, start=2):
        if len(pair) != 2:
            raise ValueError(f'line {number} is not two tokens')
    return merges


def parse_ids(file):
    """The dict from token to id of encoder.json."""
    encoder = json.load(file)
    if not isinstance(encoder, dict) or not all(type(index) is int for index in encoder.values()):
        raise ValueError('not an object of token ids')
    return encoder


def get_encoder(model_name, models_dir):
    """The Encoder of the model in models_dir/model_name.

    Raises VocabularyError, in one line naming the file and the remedy.
    """
    folder = os.path.join(models_dir, model_name)
    encoder = read_vocabulary_file(os.path.join(folder, 'encoder.json'), parse_ids)
    merges = read_vocabulary_file(os.path.join(folder, 'vocab.bpe'), parse_merges)
    try:
        return Encoder(encoder, merges)
    except VocabularyError as error:
        raise VocabularyError(f'{folder}: {error}; download the model again') from None
