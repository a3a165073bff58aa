"""Write encoder_goldens.json: texts and the ids that tiktoken, an independent encoder, gives them.

    pip install tiktoken && python tests/make_encoder_goldens.py

Needs no network: the ranks come from the release's own files in tests/release. Texts hold no lone
surrogates, which tiktoken refuses. Characters are drawn from those that Python's unicodedata knows,
so that the goldens do not hang on which version of Unicode a regex library follows.
"""

import json
import os
import random
import unicodedata

os.environ['TIKTOKEN_CACHE_DIR'] = ''  # read the files themselves, never an older copy

import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(HERE, 'release', '124M')
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PLANES = [range(0x10000 * plane, 0x10000 * (plane + 1)) for plane in range(17)]

ENGLISH = [
    '',
    'a',
    ' ',
    'Hello world',
    ' Hello, world!  ',
    'In a shocking finding, scientist discovered a herd of unicorns living in a remote, previously unexplored '
    'valley, in the Andes Mountains. Even more surprising to the researchers was the fact that the unicorns '
    'spoke perfect English.',
    'The Quick BROWN fOx jUMPS over 13 lazy dogs; "quoted" \'single\' (parens) [brackets] {braces} -- dash... end?!',
    'Antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis supercalifragilisticexpialidocious',
    'naïve café résumé Zürich Ångström façade œuvre Straße İstanbul ıI ŒUVRE',
    'SolidGoldMagikarp rawdownloadcloneembedreportprint ÃÂÃÂÃÂÃÂ davidjl',
]
CONTRACTIONS = [
    "it's don't we're I've I'm you'll he'd",
    "IT'S DON'T WE'RE I'VE I'M YOU'LL HE'D",
    "It'S don'T we'Re i'vE i'M you'Ll he'D",
    "'s't're've'm'll'd",
    " 's 't 're 've 'm 'll 'd",
    "it’s don’t we’re I’ve",
    "'sad 'tis 'reach 'very 'mad 'llama 'dog",
    "rock'n'roll o'clock '90s ''s ''' 's's' ''ll",
    "1's 2'd é't \n's \t're",
]
DIGITS = [
    '0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 2019-02-14 0xFF 1e-5 +1 -1 50%',
    'a1b2c3 1st 2nd 42nd x86_64 C3PO 007 00000000',
    '٠١٢٣٤٥٦٧٨٩ ۰۱۲۳۴۵ ०१२३४५६७८९ ০১২৩ ๐๑๒๓๔ ០១២ 一二三四五',
    '½ ¼ ² ³ ¹ Ⅷ ⅷ ① ⑳ ㊿ ₀₁₂ ⅓ ↉ ௧௨ ፩፪ 𝟘𝟙𝟚 𝟎𝟏 𐌠𐄇 𒐀𒐁 🄀 ٪',
]
WHITE_SPACE = [
    *(' ' * count for count in (2, 3, 4, 7, 8, 16, 33)),
    *('a' + ' ' * count + 'b' for count in (1, 2, 3, 5)),
    '\n', '\n\n', '\n\n\n', '\t', '\t\t', '\r', '\r\n', '\r\n\r\n', ' \n', '\n ', '\n\n a', 'a \n b', 'a\n\n\nb',
    'line one\r\nline two\r\n\r\n  indented\r\n', '\tif x:\n\t\treturn\n', 'end of line   \nnext', 'x \t \t y\t',
    'no\u00a0break\u00a0\u00a0space \u00a0 x', 'line\u2028separator\u2028\u2028 paragraph\u2029end',
    'ideographic\u3000space\u3000\u3000漢字', 'next\u0085line\u0085', 'zero\u200bwidth\u200c\u200d\ufeffspace',
    'ogham\u1680en\u2000em\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f.',
    'mongolian\u180evowel separator', 'information\x1c\x1d\x1e\x1fseparators', ' \u2028 \u3000\n\u00a0\t!',
    '\v\f', ' \u00a0', '\u00a0 ',
]  # fmt: skip
EMOJI = [
    '😀 😃😄 I ❤️ NY ☺ ☺️ ©️ ™ 🙈🙉🙊',
    '\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f9d1\u200d\U0001f4bb '
    '\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fb\U0001f44d\U0001f3fd\U0001f44d\U0001f3ff '
    '\U0001f469\U0001f3fe\u200d\U0001f680',
    '\U0001f1ec\U0001f1e7\U0001f1eb\U0001f1f7 1\ufe0f\u20e3#\ufe0f\u20e3 '
    '\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f',
]
SCRIPTS = [
    '我能吞下玻璃而不伤身体。 龍馬、東京タワー・ｶﾀｶﾅ ﾞ　「かぎ括弧」',
    '私はガラスを食べられます。それは私を傷つけません。',
    '안녕하세요 세계 \u1112\u1161\u11ab\u1100\u1173\u11af ㄱㄴㄷ',
    'أنا قادر على أكل الزجاج و هذا لا يؤلمني. ﷽ مُحَمَّد ـــ ؟',
    'אני יכול לאכול זכוכית וזה לא מזיק לי. שָׁלוֹם עֲלֵיכֶם \u200f\u202bרטל\u202c',
    'मैं काँच खा सकता हूँ और मुझे उससे कोई चोट नहीं पहुंचती। क्षत्रिय श्री',
    'ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ กำ น้ำ',
    'Я могу есть стекло, оно мне не вредит. Ђурђевдан їжак',
    'Μπορώ να φάω σπασμένα γυαλιά χωρίς να πάθω τίποτα. ΐ ᾳ',
    'Tôi có thể ăn thủy tinh mà không hại gì. Tiếng Việt',
    'மொழி தமிழ் తెలుగు ಕನ್ನಡ മലയാളം සිංහල ខ្មែរ ລາວ မြန်မာ ქართული հայերեն አማርኛ ᏣᎳᎩ ᠮᠣᠩᠭᠣᠯ བོད་',
    'e\u0301 a\u030a n\u0303 \u0301\u0302 o\u0308\u0304 Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319 '
    '\u0627\u0653 q\u0323\u0307 \u1e9b\u0323 \u20dd',
    '\u212b \u2126 \ufb01 \ufb03 \u01c6 \u1e9e \u0130 \u0131 ꜳ ℌ𝔢𝔩𝔩𝔬 𝓦𝓸𝓻𝓵𝓭 𐐷𐑊 𓀀𓁐 𠮷野家',
    '→ ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β ≈ ∑∫ √2 ≠ π · 10⁻⁵ ± ∞ ░▒▓█ ┌─┐ €£¥₹₿ § ¶ † ‰ “„«»”',
]
CODE = [
    'def f(x):\n    """Doc."""\n    return {k: v**2 for k, v in x.items() if v != -1}  # why\n\n\n'
    'class A(B):\n    pass\n',
    'for (int i = 0; i < n; ++i) { a[i] <<= 2; p->q += *r; }\r\n\treturn &x; // ok\r\n/* ***** */',
    '<!DOCTYPE html><a href="https://example.org/a?b=c&d=%20e#f">x</a>&nbsp;<br/>',
    'https://user:pass@example.co.uk:8080/path/to/file.tar.gz?q=1&r=%C3%A9#frag mailto:a.b+c@d-e.org C:\\Users\\x\\n',
    '$ grep -rn "\\s\\+" . | awk \'{print $1}\' && echo $? > /dev/null 2>&1',
    '{"key": [1, 2.5e10, null, true], "s": "\\u00e9\\n"}',
    '======== ------- ******** ........ ________ //////// ???!!! #$%^&*()_+|~`',
    '@@ -1,3 +1,3 @@\n-old\n+new\n <<<<<<< HEAD\n',
]
SPECIAL = [
    '<|endoftext|>', ' <|endoftext|>', 'one<|endoftext|>two', '<|endoftext|><|endoftext|>\n', '<|ENDOFTEXT|>',
    '<|startoftext|>', '\0', '\0\0\0', 'a\0b', '\x01\x02\x07\x08\x0e\x1a\x1b[31mred\x1b[0m\x7f', '\x80\x81\x9f\xad',
    '\ufffd', '\ufffd\ufffd a\ufffd', '\ufeffbyte order mark', '\ufffe\uffff', '\ufdd0\ufdef', '\ue000\uf8ff',
    '\u202emirror\u202c \u2066x\u2069', 'ĠHello Ċ Ġ Ń Ā ġ', '\U0010fffd\U0010ffff\U000f0000',
    ''.join(map(chr, range(128))), ''.join(map(chr, range(128, 256))),
]  # fmt: skip
REPEATS = [
    *(unit * 300 for unit in ('a', 'A', ' ', '\n', '0', '=', '-', 'é', '!', '\u00a0')),
    *(unit * 120 for unit in ('ab', '😀', '漢', ' the', '\r\n', "'s")),
]
TEXTS = [*ENGLISH, *CONTRACTIONS, *DIGITS, *WHITE_SPACE, *EMOJI, *SCRIPTS, *CODE, *SPECIAL, *REPEATS]
SEPARATORS = ["'s", "'ll", "'D", ' ', '  ', '\n', '\t', '\u00a0', '\u3000', '\x1c', '9', '!', 'the', '']


def known(characters):
    """Private use characters and noncharacters are in; unassigned characters and surrogates are not."""
    return [
        chr(code)
        for code in characters
        if unicodedata.category(chr(code)) not in ('Cn', 'Cs') or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    ]


def plane_samples(generator):
    for plane in PLANES:
        characters = known(plane)
        count = min(len(characters), 120 if plane.start < 0x20000 else 30)
        sample = generator.sample(characters, count)
        yield ''.join(sample)
        yield ' '.join(sample[: count // 2])


def random_strings(generator):
    letters = 'abcdefghijklmnopqrstuvwxyz'
    yield ''.join(generator.choices(letters, k=1500))
    yield ''.join(generator.choices(letters.upper() + letters, k=500))
    characters = known(range(0x110000))
    fragments = ''.join(text for text in TEXTS if text not in REPEATS)
    for _ in range(100):
        parts = []
        for _ in range(generator.randrange(1, 12)):
            start = generator.randrange(len(fragments))
            parts += [
                fragments[start : start + generator.randrange(1, 12)],
                generator.choice(SEPARATORS),
                generator.choice(characters) * generator.randrange(2),
            ]
        generator.shuffle(parts)
        yield ''.join(parts)


def main():
    generator = random.Random(50256)
    texts = [*TEXTS, *plane_samples(generator), *random_strings(generator)]
    ranks = data_gym_to_mergeable_bpe_ranks(os.path.join(RELEASE, 'vocab.bpe'), os.path.join(RELEASE, 'encoder.json'))
    oracle = tiktoken.Encoding('gpt2', pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    lines = [json.dumps({'text': text, 'ids': oracle.encode_ordinary(text)}) for text in dict.fromkeys(texts)]
    with open(os.path.join(HERE, 'encoder_goldens.json'), 'w', encoding='ascii', newline='\n') as file:
        file.write('[\n' + ',\n'.join(lines) + '\n]\n')


if __name__ == '__main__':
    main()
