"""The figures of Radford et al. 2019, 'Language Models are Unsupervised Multitask Learners', by model.

Models are named as their folders are: the paper's 117M, 345M, 762M and 1542M are 124M, 355M, 774M and
1558M. Accuracies are in per cent. Of the Winograd figure the paper does not say whether it is the partial or
the full score.
"""

SIZES = ('124M', '355M', '774M', '1558M')


def by_size(*figures: float) -> dict[str, float]:
    return dict(zip(SIZES, figures))


# Table 3, zero-shot results
LAMBADA_PERPLEXITY = by_size(35.13, 15.60, 10.87, 8.63)
LAMBADA_ACCURACY = by_size(45.99, 55.48, 60.12, 63.24)
CBT_COMMON_NOUNS = by_size(87.65, 92.35, 93.45, 93.30)
CBT_NAMED_ENTITIES = by_size(83.4, 87.1, 88.0, 89.05)
WIKITEXT2 = by_size(29.41, 22.76, 19.93, 18.34)
PENN_TREEBANK = by_size(65.85, 47.33, 40.31, 35.76)
ENWIK8 = by_size(1.16, 1.01, 0.97, 0.93)
TEXT8 = by_size(1.17, 1.06, 1.02, 0.98)
WIKITEXT103 = by_size(37.50, 26.37, 22.05, 17.48)
ONE_BILLION_WORDS = by_size(75.20, 55.72, 44.575, 42.16)

# Section 3, where figures are given for the largest model only
LAMBADA_ACCURACY_WITHOUT_STOP_WORD_FILTER = {'1558M': 52.66}
WINOGRAD = {'1558M': 70.70}
COQA_F1 = {'1558M': 55.0}
ROUGE_1 = {'1558M': 29.34}
ROUGE_2 = {'1558M': 8.27}
ROUGE_L = {'1558M': 26.58}
ENGLISH_FRENCH_BLEU = {'1558M': 5.0}
FRENCH_ENGLISH_BLEU = {'1558M': 11.5}
NATURAL_QUESTIONS = {'1558M': 4.1}
