import json

import pytest

pytest.importorskip('datatrove')
from datatrove.data import Document
from example_pages import english

from gpt2.preparation.contamination import Contaminated, N, write_index

SET = ['The evaluation set says that the early bird of the seven seas catches no worm at all on Sundays.']
SHARED = 'says that THE early bird, of the seven seas, catches no worm at'  # 13 words of it


@pytest.mark.parametrize(('drop', 'left'), [(True, ['clean', 'twelve']), (False, ['clean', 'dirty', 'twelve'])])
def test_documents_that_share_n_grams_are_listed_or_left_out(tmp_path, drop, left):
    assert len(SHARED.split()) == N
    write_index(str(tmp_path), SET)
    text = ' '.join(english(0, 0))
    documents = [
        Document(text, 'clean'), Document(f'{text} {SHARED}. {text}', 'dirty'),
        Document(f'{text} {SHARED.rpartition(" ")[0]} {text}', 'twelve'),
    ]  # fmt: skip
    block = Contaminated(str(tmp_path), drop)
    assert [document.id for document in block.run(iter(documents))] == left
    [line] = (tmp_path / 'listed' / '00000.jsonl').read_text().splitlines()
    assert json.loads(line)['id'] == 'dirty'
    assert json.loads(line)['shared'] == 1
    assert block.stats['listed'].total == 1
    assert block.stats['dropped'].total == drop
