"""How an answer is compared with those that people gave, as SQuAD and CoQA do.

Rajpurkar et al. 2016, section 6.1; Reddy et al. 2019, section 5.1.
"""

import collections
import re
import string
from collections.abc import Iterable, Sequence


def normalise(answer: str) -> list[str]:
    """Words of an answer in lower case, without punctuation and articles."""
    text = ''.join(character for character in answer.lower() if character not in string.punctuation)
    return re.sub(r'\b(a|an|the)\b', ' ', text).split()


def f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall of the words of an answer, from 0 to 1."""
    found, wanted = normalise(answer), normalise(expected)
    if not found or not wanted:
        return float(found == wanted)
    common = sum((collections.Counter(found) & collections.Counter(wanted)).values())
    return 2 * common / (len(found) + len(wanted))


def f1_of_several(answer: str, expected: Sequence[str]) -> float:
    """As CoQA counts (Reddy et al. 2019, section 5.1): so that people, who are compared with one fewer, can be
    compared with models, the mean over leaving out one expected answer of the best F1 with the others."""
    if len(expected) == 1:
        return f1(answer, expected[0])
    scores = [f1(answer, other) for other in expected]
    return sum(max(scores[:left] + scores[left + 1 :]) for left in range(len(scores))) / len(scores)


def exact_match(answer: str, expected: Iterable[str]) -> bool:
    return any(normalise(answer) == normalise(other) for other in expected)
