"""Byte-level byte-pair encoding: text to token ids and back (Radford et al. 2019, section 2.2).

Text is split into pre-tokens by a pattern; the UTF-8 bytes of each become printable characters;
neighbours are merged, lowest rank first, until no merge applies; what remains are tokens.
"""

import functools
import heapq
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import IO, Any, TypeVar

import regex

from gpt2.errors import Error
from gpt2.system.files import open_small, whole_file
from gpt2.system.garbage import collection_held_back

# Contractions, letters, digits, other marks (each with at most one space before), white space.
PRETOKEN = regex.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
SPACE, SPACES = regex.compile(r'\p{White_Space}'), regex.compile(r'\p{White_Space}*')
WORD = regex.compile(r'[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]')
END_OF_TEXT = '<|endoftext|>'
GENERATION_CONFIG = 'generation_config.json'
KEPT_ROLES = ('bos_token', 'pad_token')  # beside the release's files, as <role>_id in a generation_config.json
CACHE_ENTRIES = 2**17  # of English, 26 MB when full
LONGEST_CACHED = 64  # characters; longer pre-tokens hardly ever come twice
Parsed = TypeVar('Parsed')


class VocabularyError(Error):
    """A vocabulary that is missing, unreadable or does not fit its merges."""


@functools.lru_cache
def bytes_to_unicode() -> dict[int, str]:
    """Map each byte to a printable character, so that merges can be kept in a text file.

    Printable ASCII and Latin-1 characters stand for themselves; the other 68 bytes, in order,
    are U+0100 and upward. Returns a dict from int (0-255) to a string of one character.
    """
    printable = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = [*map(chr, printable), *(chr(0x100 + index) for index in range(len(others)))]
    return dict(zip(printable + others, characters))


def get_pairs(word: Iterable[str]) -> set[tuple[str, str]]:
    """The set of neighbouring pairs in a word, a sequence of symbols."""
    return set(pairwise(word))


def utf8(text: str) -> bytes:
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


def merge(symbols: Iterable[str], ranks: Mapping[tuple[str, ...], int]) -> list[str]:
    """Merge neighbours, lowest rank first and leftmost among equals, until none has a rank.

    Merges must come in the order they were learnt, as in any trained vocabulary: a pair before
    those that its result is part of. A heap over a linked list: n log n in the length of the
    word, where rescanning after every merge would take minutes for 100,000 letters without a space.
    """
    parts: list[Any] = list(symbols)
    length = len(parts)
    following = list(range(1, length + 1))
    previous = list(range(-1, length - 1))
    heap = [(ranks[pair], left) for left, pair in enumerate(pairwise(parts)) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank, left = heapq.heappop(heap)
        right = following[left]
        # A symbol that was merged away is None; one that has grown makes another pair.
        if right >= length or ranks.get((parts[left], parts[right])) != rank:
            continue
        parts[left] += parts[right]
        parts[right] = None
        after = following[left] = following[right]
        if after < length:
            previous[after] = left
            new = ranks.get((parts[left], parts[after]))
            if new is not None:
                heapq.heappush(heap, (new, left))
        before = previous[left]
        if before >= 0:
            new = ranks.get((parts[before], parts[left]))
            if new is not None:
                heapq.heappush(heap, (new, before))
    return [part for part in parts if part is not None]


def encode_pretoken(encoder: Mapping[str, int], ranks: Mapping[tuple[str, ...], int], pretoken: str) -> list[int]:
    spelt_out = bytes_to_unicode()
    return [encoder[token] for token in merge([spelt_out[byte] for byte in utf8(pretoken)], ranks)]


class PretokenCache(dict):
    """From pre-token to its ids; encodes what it lacks, and is emptied when full."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self.encode = encode

    def __missing__(self, pretoken: str) -> list[int]:
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
    added: dict from text to id of tokens that no merge makes, such as `<|endoftext|>`; None means those
    that encoder lists last, as find_added has it.
    end_of_text: id of the token that ends a text; None means that of `<|endoftext|>`, if there is one.
    end_ids: ids of all tokens that end a text; that of end_of_text becomes the first of them.
    flags: how added tokens match, by text: of 'lstrip' (with the white space before it), 'rstrip' (after it),
    'single_word' (only where no letter, digit or _ adjoins), 'normalized' (only in what the others leave);
    and 'special', which a program that decodes may leave out.
    roles: texts of added tokens by what they are for, as tokenizer_config.json names it (bos_token, pad_token).
    Raises VocabularyError when encoder and merges do not belong together.
    """

    def __init__(
        self,
        encoder: dict[str, int],
        bpe_merges: Iterable[Sequence[str]],
        errors: str = 'replace',
        added: dict[str, int] | None = None,
        end_of_text: int | None = None,
        end_ids: Iterable[int] = (),
        flags: Mapping[str, frozenset[str]] | None = None,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        merges = [tuple(pair) for pair in bpe_merges]
        self.encoder = encoder
        self.bpe_ranks = {pair: rank for rank, pair in enumerate(merges)}
        made = made_tokens(merges)
        self.added = find_added(encoder, made) if added is None else added
        self.decoder = {index: spelt(text) for text, index in self.added.items()}
        self.decoder |= {index: token for token, index in self.owners()}
        if len(self.bpe_ranks) < len(merges):
            raise VocabularyError('vocab.bpe: a merge comes twice')
        check_vocabulary(self, made, added is None)
        first = encoder.get(END_OF_TEXT) if end_of_text is None else end_of_text
        self.end_ids = tuple(dict.fromkeys([*([] if first is None else [first]), *end_ids]))
        for index in self.end_ids:
            if index not in self.decoder:
                raise VocabularyError(f'the end of text is {index!r}, which is the id of no token')
        self.flags, self.roles = dict(flags or {}), dict(roles or {})
        self.errors = errors
        self.byte_encoder = bytes_to_unicode()
        self.byte_decoder = {character: byte for byte, character in self.byte_encoder.items()}
        # Not a method of this object: the two would hold each other, and their memory, until a collection.
        self.cache = PretokenCache(functools.partial(encode_pretoken, self.encoder, self.bpe_ranks))
        later = {text for text in self.added if 'normalized' in self.flags.get(text, ())}
        self.added_patterns = [added_pattern(texts) for texts in (self.added.keys() - later, later) if texts]

    def __len__(self) -> int:
        """The number of tokens; ids are all below it."""
        return len(self.decoder)

    @property
    def end_of_text(self) -> int:
        """The id of the token that ends a text. Raises VocabularyError for a vocabulary that has none."""
        if not self.end_ids:
            raise VocabularyError('the vocabulary has no token that ends a text; none can be begun or ended by one')
        return self.end_ids[0]

    @functools.cached_property
    def token_bytes(self) -> list[bytes]:
        """What each token stands for, by its id."""
        return [self.decode_bytes([index]) for index in range(len(self))]

    @functools.cached_property
    def longest(self) -> int:
        """Bytes of the longest token: a text of n bytes has at least n / longest tokens."""
        return max(map(len, self.decoder.values()))

    @functools.cached_property
    def alphabetical(self) -> list[int]:
        """All ids, in the order of the bytes that they stand for."""
        return sorted(range(len(self)), key=self.token_bytes.__getitem__)

    def owners(self) -> list[tuple[str, int]]:
        """(token, id) of all in encoder but an `<|endoftext|>` that is a second name for an added token."""
        owners = dict(self.encoder)
        if END_OF_TEXT not in self.added:
            owners.pop(END_OF_TEXT, None)
        return [*owners.items()]

    def bpe(self, token: str) -> str:
        """Tokens of one pre-token, both in the characters of bytes_to_unicode, joined by spaces."""
        return ' '.join(merge(token, self.bpe_ranks))

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids, a list of int, of any string.

        special: take added tokens that stand in the text, `<|endoftext|>` among them, for what they are.
        Otherwise their ids never come, so that a text from a stranger is nothing but text.
        """
        if not special:
            return list(chain.from_iterable(map(self.cache.__getitem__, PRETOKEN.findall(text))))
        parts: list[tuple[str, bool]] = [(text, False)]
        for pattern in self.added_patterns:
            parts = [
                part for whole, added in parts for part in ([(whole, added)] if added else self.split(pattern, whole))
            ]
        return [index for part, added in parts for index in ([self.added[part]] if added else self.encode(part))]

    def split(self, pattern: 'regex.Pattern[str]', text: str) -> Iterator[tuple[str, bool]]:
        """Yield (part of text, whether it is an added token). Tokens that pattern finds match as their flags say."""
        done = 0
        for found in pattern.finditer(text):
            start, end = found.span()
            flags = self.flags.get(found.group(), frozenset())
            if 'single_word' in flags and (WORD.match(text[start - 1 : start]) or WORD.match(text, end)):
                continue
            if 'lstrip' in flags:
                while start > done and SPACE.match(text, start - 1):
                    start -= 1
            if 'rstrip' in flags:
                end = SPACES.match(text, end).end()
            if done < start:
                yield text[done:start], False
            yield found.group(), True
            done = end
        if done < len(text):
            yield text[done:], False

    def same_tokens(self, other: 'Encoder') -> bool:
        """Whether an id is the same token in another encoder."""
        one, two = ((each.encoder, each.added, each.end_of_text) for each in (self, other))
        return one == two

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """The bytes that token ids stand for. Raises ValueError for an id outside the vocabulary."""
        try:
            text = ''.join([self.decoder[token] for token in tokens])
        except KeyError as error:
            raise ValueError(f'token id {error.args[0]} is outside the vocabulary of {len(self.decoder)}') from None
        return bytes([self.byte_decoder[character] for character in text])

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of token ids; bytes that are not UTF-8 are treated as self.errors says."""
        return self.decode_bytes(tokens).decode('utf-8', errors=self.errors)


def added_pattern(texts: Iterable[str]) -> 'regex.Pattern[str]':
    """The pattern that finds added tokens: of several that begin at one place the longest."""
    return regex.compile('|'.join(map(regex.escape, sorted(texts, key=len, reverse=True))))


def spelt(text: str) -> str:
    """A text in the characters of bytes_to_unicode."""
    return ''.join(bytes_to_unicode()[byte] for byte in utf8(text))


def unspelt(token: str) -> str:
    """The inverse of spelt, for a token that is whole characters; any other raises ValueError."""
    bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}
    try:
        return bytes(bytes_of[character] for character in token).decode('utf-8')
    except KeyError:
        raise ValueError(token) from None


def made_tokens(bpe_merges: Iterable[Sequence[str]]) -> dict[str, None]:
    """The tokens that bytes and merges make, as the keys of a dict."""
    return dict.fromkeys([*bytes_to_unicode().values(), *map(''.join, bpe_merges)])


def find_added(encoder: dict[str, int], made: Collection[str]) -> dict[str, int]:
    """The added tokens of an encoder.json, {text: id}: `<|endoftext|>` and, where it comes after all that
    bytes and merges make, what the file lists after it.

    A token that nothing makes and that stands elsewhere is left out: it is the mark of a file that was
    cut. An `<|endoftext|>` that shares its id with another token is but a second name for it.
    """
    tokens = list(encoder)
    if END_OF_TEXT not in encoder:
        return {}
    place = tokens.index(END_OF_TEXT)
    last = [] if any(token in made for token in tokens[place:]) else tokens[place + 1 :]
    try:
        added = {unspelt(token): encoder[token] for token in last}
    except ValueError as error:
        raise VocabularyError(f'encoder.json has the token {error.args[0]!r}, which is no text') from None
    return added if encoder[END_OF_TEXT] in added.values() else {END_OF_TEXT: encoder[END_OF_TEXT]} | added


def check_vocabulary(vocabulary: 'Encoder', made: dict[str, None], released: bool) -> None:
    """Raise VocabularyError unless the tokens are just those that bytes and merges make, and the added ones.

    released: `<|endoftext|>` must be among them.
    """
    encoder, owners = vocabulary.encoder, vocabulary.owners()
    if len({index for _, index in owners}) < len(owners) or vocabulary.decoder.keys() != set(range(len(vocabulary))):
        raise VocabularyError(f'encoder.json: ids are not each of 0 to {len(encoder) - 1} once')
    known = {spelt(text) for text in vocabulary.added}
    remedy = 'one of the two files is damaged or of another model'
    for byte, token in bytes_to_unicode().items():
        if token not in encoder:
            raise VocabularyError(
                f'encoder.json has no id for {token!r}, the byte {byte:#04x}; this program needs one for each byte'
            )
    if missing := made.keys() - encoder.keys():
        token = next(token for token in made if token in missing)
        raise VocabularyError(f'encoder.json has no id for {token!r}, which vocab.bpe makes: {remedy}')
    if released and END_OF_TEXT not in encoder:
        raise VocabularyError(f'encoder.json has no id for {END_OF_TEXT!r}, which ends a text: {remedy}')
    if strange := encoder.keys() - made.keys() - known - {END_OF_TEXT}:
        token = next(token for token in encoder if token in strange)
        raise VocabularyError(f'encoder.json has the token {token!r}, which vocab.bpe does not make: {remedy}')


def read_vocabulary_file(path: str, parse: Callable[[IO[str]], Parsed]) -> Parsed:
    try:
        with open_small(path, 'utf-8-sig') as file:
            return parse(file)
    except FileNotFoundError:
        raise VocabularyError(f'{path} is not there; download the model again') from None
    except (OSError, ValueError, RecursionError) as error:
        raise VocabularyError(f'{path} cannot be read ({error}); download the model again') from None


def parse_merges(file: IO[str]) -> list[tuple[str, ...]]:
    """Pairs of tokens from vocab.bpe: a version line, then one merge a line."""
    merges = [tuple(line.split()) for line in file.read().split('\n')[1:] if line]
    if set(map(len, merges)) - {2}:
        number = next(number for number, pair in enumerate(merges, start=2) if len(pair) != 2)
        raise ValueError(f'line {number} is not two tokens')
    return merges


def parse_ids(file: IO[str]) -> dict[str, int]:
    """The dict from token to id of encoder.json."""
    encoder = json.load(file)
    if not isinstance(encoder, dict) or set(map(type, encoder.values())) - {int}:
        raise ValueError('not an object of token ids')
    return encoder


def parse_special_ids(file: IO[str]) -> dict[str, list[int]]:
    """{'eos_token': ids of the end tokens, 'bos_token': [its id], 'pad_token': [its id]} of a
    generation_config.json; no ids where it does not say."""
    config = json.load(file)
    if not isinstance(config, dict):
        raise ValueError('not an object')
    ids = {}
    for name in ('eos_token', *KEPT_ROLES):
        found = config.get(f'{name}_id')
        ids[name] = found if isinstance(found, list) else [] if found is None else [found]
        if not all(type(index) is int for index in ids[name]):
            raise ValueError(f'{name}_id is {found!r}')
    return ids


@collection_held_back()
def read_encoder(folder: str) -> Encoder:
    """The Encoder of a folder in the release's layout.

    A generation_config.json beside it, which the release has not, names end tokens and others of the model's
    own. Raises VocabularyError, in one line naming the file and the remedy.
    """
    encoder = read_vocabulary_file(os.path.join(folder, 'encoder.json'), parse_ids)
    merges = read_vocabulary_file(os.path.join(folder, 'vocab.bpe'), parse_merges)
    generation = os.path.join(folder, GENERATION_CONFIG)
    ids = read_vocabulary_file(generation, parse_special_ids) if os.path.lexists(generation) else {}
    ends = ids.get('eos_token', [])
    try:
        found = Encoder(encoder, merges, end_of_text=next(iter(ends), None), end_ids=ends)
        texts = {index: text for text, index in found.added.items()}
        found.roles |= {role: texts[i] for role in KEPT_ROLES for i in ids.get(role, []) if i in texts}
        return found
    except VocabularyError as error:
        raise VocabularyError(f'{folder}: {error}; download the model again') from None


def get_encoder(model_name: str, models_dir: str) -> Encoder:
    """The Encoder of the model in models_dir/model_name. Raises VocabularyError, as read_encoder does."""
    return read_encoder(os.path.join(models_dir, model_name))


def write_encoder(folder: str, vocabulary: Encoder) -> None:
    """Write encoder.json and vocab.bpe, and generation_config.json where the release's files would not
    name the end token. Raises VocabularyError for a vocabulary that they cannot hold.
    """
    files = {
        'encoder.json': json.dumps(listed_ids(vocabulary)),
        'vocab.bpe': '\n'.join(['#version: 0.2', *map(' '.join, vocabulary.bpe_ranks), '']),
    }
    special = special_ids(vocabulary)
    if any(index != vocabulary.encoder[END_OF_TEXT] for index in special.values()):
        files[GENERATION_CONFIG] = json.dumps(special) + '\n'
    for name, text in files.items():
        with whole_file(os.path.join(folder, name)) as file:
            file.write(text)


def special_ids(vocabulary: Encoder) -> dict[str, Any]:
    """What a generation_config.json says of a vocabulary: its end tokens, and those of KEPT_ROLES that are known."""
    ends = vocabulary.end_ids
    ids: dict[str, Any] = {'eos_token_id': ends[0] if len(ends) == 1 else list(ends)} if ends else {}
    named = {f'{role}_id': vocabulary.added[text] for role, text in vocabulary.roles.items() if role in KEPT_ROLES}
    return ids | named


def listed_ids(vocabulary: Encoder) -> dict[str, int]:
    """The content of encoder.json: first the tokens that bytes and merges make, then `<|endoftext|>`, then
    the added tokens, spelt as the others are, which the release's own reader needs to decode them."""
    if END_OF_TEXT not in vocabulary.encoder:
        raise VocabularyError("the vocabulary has no token that ends a text, which the release's layout needs")
    made = made_tokens(vocabulary.bpe_ranks)
    added = {spelt(text): index for text, index in vocabulary.added.items()}
    for token, index in added.items():
        if vocabulary.encoder.get(token, index) != index:
            raise VocabularyError(
                f'the added token {unspelt(token)!r} is spelt in encoder.json as token {vocabulary.encoder[token]} is; '
                "the release's layout cannot hold both"
            )
    plain = {token: index for token, index in vocabulary.encoder.items() if token in made}
    by_id = dict(sorted(plain.items(), key=lambda item: item[1]))
    own = {token: index for token, index in added.items() if index not in plain.values()}
    return by_id | {END_OF_TEXT: vocabulary.encoder[END_OF_TEXT]} | own
