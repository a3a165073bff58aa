"""Undoing what tokenisers did to evaluation sets, so that their text looks like text.

The paper (Radford et al. 2019, section 3.1) uses "invertible de-tokenizers": because the tokenised text can be
restored, the probability of the one is that of the other. Its rules were not published; these are
ours. A Rule is undone by its own inverse; a line that the inverses would not restore is left as it is,
which `detokenise` counts.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import regex

END = r'(?=[,;:!?"\')\]]*(?: |$))'  # what a mark may be followed by once it has joined its word


class Rule(NamedTuple):
    """What a rule does, in words, and as a pattern with its replacement; and the same for its inverse."""

    what: str
    pattern: str
    replacement: str
    inverse: str
    restored: str


def joined_left(what: str, marks: str, before: str = r'\S') -> Rule:
    """A rule by which marks, a pattern, join what stands before them."""
    return Rule(what, rf'(?<={before}) ({marks}){END}', r'\1', rf'(?<={before})({marks}){END}', r' \1')


# A full stop after these may belong to the word, so one that stands apart stays apart.
ABBREVIATION = (
    r'(?<=(?:^|[ "(\[])(?:Adm|Ave|Blvd|Bros|Brig|Capt|Cmdr|Co|Col|Corp|Dr|Fr|Ft|Gen|Gov|Hon|Inc|Jr|Lt|Ltd|Maj|Messrs|'
    r'Mr|Mrs|Ms|Mt|No|Nos|Op|Prof|Rep|Rev|Sen|Sgt|Sr|St|al|cf|ca|etc|pp|v|vs|op|\p{L}|\S*\.\S*))'
)
QUOTES = Rule(
    'double quotes join what they enclose',
    r'(?<!\S)" ([^"]*[^" ]) "(?!\S)', r'"\1"', r'(?<!\S)"([^"]*[^" ])"(?!\S)', r'" \1 "',
)  # fmt: skip
ROUND = Rule('round brackets join what they enclose', r'(?<!\S)\( (.*?) \)(?!\S)', r'(\1)',
             r'(?<!\S)\((.*?)\)(?!\S)', r'( \1 )')  # fmt: skip
SQUARE = Rule('square brackets join what they enclose', r'(?<!\S)\[ (.*?) \](?!\S)', r'[\1]',
              r'(?<!\S)\[(.*?)\](?!\S)', r'[ \1 ]')  # fmt: skip
MARKS = joined_left('comma, semicolon, colon, ! and ? join the word before', r'[,;:!?]')
STOP = joined_left(
    'a full stop joins the word before, unless that is an abbreviation or an initial',
    r'\.', rf'[^ .](?<!{ABBREVIATION})',
)  # fmt: skip
PERCENT = joined_left('% joins the number before', '%', r'\d')
CURRENCY = Rule('$, £ and # join the number after', r'([$£#]) (?=\d)', r'\1', r'([$£#])(?=\d)', r'\1 ')
CONTRACTIONS = joined_left("'s 're 've 'm 'll 'd join the word before", r"'(?:s|re|ve|m|ll|d)", r'[\w>]')
NOT = joined_left("'t joins the word before", "'t", r'[\w>]')  # don 't
PENN_NOT = joined_left("n't joins the word before", "n't", r'\p{L}')  # do n't

EDGES = [
    Rule('the space a line begins with goes', r'^ ', '', r'^', ' '),
    Rule('the space a line ends with goes', r'(?<=\S) $', '', r'(?<=\S)$', ' '),
]
WIKITEXT_RULES = [
    *EDGES,
    Rule('@-@ is a hyphen within a word', r'(?<=\S) @-@ (?=\S)', '-', r'(?<=\S)-(?=\S)', ' @-@ '),
    Rule('@,@ is a comma within a number', r'(?<=\d) @,@ (?=\d)', ',', r'(?<=\d),(?=\d)', ' @,@ '),
    Rule('@.@ is a point within a number', r'(?<=\d) @\.@ (?=\d)', '.', r'(?<=\d)\.(?=\d)', ' @.@ '),
    Rule('= = is ==', r'(?<=(?:^|=)) (?==)|(?<==) (?==)', '', r'(?<==)(?==)', ' '),
    QUOTES, ROUND, SQUARE, CURRENCY, CONTRACTIONS, NOT, PERCENT, MARKS, STOP,
]  # fmt: skip


OPENING = Rule('two backquotes are " before a word', r'(?<!\S)`` (?=\S)', '"', r'(?<!\S)"(?=\S)', '`` ')
CLOSING = Rule('two apostrophes are " after a word', r"(?<=\S) ''(?!\S)", '"', r'(?<=\S)"(?!\S)', " ''")
PENN_TREEBANK_RULES = [
    *EDGES, PENN_NOT, CONTRACTIONS,
    Rule('$ and # join the number after', r'(?<!\S)([$#]) (?=[N\d])', r'\1', r'(?<!\S)([$#])(?=[N\d])', r'\1 '),
]  # fmt: skip
# The file of the Children's Book Test has the Penn Treebank's tokens, with capitals and marks.
BOOK_RULES = [
    Rule('-LRB- and -RRB- are round brackets', r'(?<!\S)-LRB- (.*?) -RRB-(?!\S)', r'( \1 )',
         r'(?<!\S)\( (.*?) \)(?!\S)', r'-LRB- \1 -RRB-'),
    OPENING, CLOSING, ROUND, PENN_NOT, CONTRACTIONS, MARKS, STOP,
]  # fmt: skip
ONE_BILLION_WORD_RULES = [QUOTES, ROUND, SQUARE, CURRENCY, CONTRACTIONS, NOT, PERCENT, MARKS, STOP]


def describe(rules: Iterable[Rule]) -> str:
    return '; '.join(rule.what for rule in rules)


def apply(rules: Iterable[Rule], line: str) -> str:
    for rule in rules:
        line = regex.sub(rule.pattern, rule.replacement, line)
    return line


def undo(rules: Sequence[Rule], line: str) -> str:
    """The tokenised line that apply made line of."""
    for rule in reversed(rules):
        line = regex.sub(rule.inverse, rule.restored, line)
    return line


def detokenise(rules: Sequence[Rule], lines: Sequence[str]) -> tuple[list[str], int]:
    """(lines with the rules applied, how many were left as they are because that could not be undone)."""
    found = [apply(rules, line) for line in lines]
    kept = [undo(rules, new) == old for new, old in zip(found, lines)]
    return [new if whole else old for new, old, whole in zip(found, lines, kept)], kept.count(False)
