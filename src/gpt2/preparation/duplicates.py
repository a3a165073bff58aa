"""Removing what is there twice: the same text, and nearly the same by MinHash (Broder 1997), on datatrove's blocks."""

import functools
import os
from collections.abc import Callable
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.dedup import (
    ExactDedupFilter,
    ExactDedupSignature,
    ExactFindDedups,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig
from datatrove.pipeline.dedup.minhash import MinhashConfig

from gpt2.preparation.addresses import key
from gpt2.preparation.words import Words

WORDS = 5  # of an n-gram, two sets of which are compared
# Two documents are taken for duplicates if all hashes of some bucket agree. That has the probability
# 1 - (1 - s ** HASHES) ** BUCKETS for a Jaccard similarity of s: 0.51 at 0.5, 0.03 at 0.3, 0.88 at 0.6, 0.996 at 0.7.
BUCKETS, HASHES = 45, 6


def whole_text(document: Document) -> str:
    return document.text


def page_of(document: Document) -> str:
    """Of a link."""
    return key(document.text)


class ExactFilter(ExactDedupFilter):
    name = 'exact duplicate'


class NearFilter(MinhashDedupFilter):
    name = 'near duplicate'


class Exact:
    """Three blocks that find documents of the same content, and keep one. folder: for what they find."""

    def __init__(self, folder: str, content: Callable[[Document], str] = whole_text) -> None:
        self.config = ExactDedupConfig(content_getter=content)
        self.signatures, self.found = os.path.join(folder, 'signatures'), os.path.join(folder, 'found')

    def signature(self) -> Any:
        return ExactDedupSignature(self.signatures, self.config)

    def find(self) -> Any:
        return ExactFindDedups(self.signatures, self.found, self.config)

    def filter(self) -> Any:
        return ExactFilter(self.found, self.config)


class Near:
    """Four blocks that find documents that share many 5-grams of words, and keep one of each cluster."""

    def __init__(self, folder: str) -> None:
        self.config = MinhashConfig(n_grams=WORDS, num_buckets=BUCKETS, hashes_per_bucket=HASHES)
        place = functools.partial(os.path.join, folder)
        self.signatures, self.pairs, self.removed = place('signatures'), place('pairs'), place('removed')

    def signature(self) -> Any:
        return MinhashDedupSignature(self.signatures, self.config, language=Words())

    def pair(self) -> Any:
        return MinhashDedupBuckets(self.signatures, self.pairs, config=self.config)

    def cluster(self) -> Any:
        return MinhashDedupCluster(self.pairs, self.removed, config=self.config)

    def filter(self) -> Any:
        return NearFilter(self.removed)
