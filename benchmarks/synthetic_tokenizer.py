"""A tokenizer of the published kind and size with made-up vocabulary, for random checkpoints.

WordPiece over letters, letter pairs and Chinese characters: real text becomes more tokens than
with a learned vocabulary, but any text becomes tokens. The control tokens have their own ids at
the end, in the published order.
"""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_CONTROLS = """
Sasr Pasr Easr Stts Ptts Etts Sbreak Pbreak Ebreak uv_break v_break lbreak llbreak undefine laugh
spk_emb empty_spk music pure
"""
_CONTROL_LEVELS = {"break": 8, "laugh": 3, "oral": 10, "speed": 10}
CONTROL_TOKENS = (
    *(f"[{name}]" for name in _CONTROLS.split()),
    *(f"[{name}_{level}]" for name, count in _CONTROL_LEVELS.items() for level in range(count)),
)
_BERT_TOKENS = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
_FIRST_WORD_ID = 104
_NUM_CHINESE = 7_000
_FIRST_CHINESE = 0x4E00


def write_tokenizer(folder: Path, num_text_tokens: int) -> None:
    """Write the three files of `asset/tokenizer` with exactly `num_text_tokens` ids."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(num_text_tokens)
    # The published file has both switched on; readers must switch them off.
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding(length=256)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"additional_special_tokens": list(CONTROL_TOKENS), "unk_token": "[UNK]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    config = {"tokenizer_class": "BertTokenizer", "model_max_length": 1_000_000, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def build_tokenizer(num_text_tokens: int) -> Tokenizer:
    """WordPiece of `num_text_tokens` ids, the control tokens last."""
    first_control = num_text_tokens - len(CONTROL_TOKENS)
    vocabulary = dict(zip(_words(), range(first_control), strict=False))
    vocabulary |= {token: first_control + i for i, token in enumerate(CONTROL_TOKENS)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    special = [*_BERT_TOKENS.values(), *CONTROL_TOKENS]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return tokenizer


def _words() -> Iterator[str]:
    """Every vocabulary entry before the control tokens, without end and without repeats."""
    for index in range(_FIRST_WORD_ID):
        yield _BERT_TOKENS.get(index, f"[unused{index}]")
    yield from string.ascii_lowercase
    yield from (f"##{letter}" for letter in string.ascii_lowercase)
    yield from string.digits
    yield from (f"##{digit}" for digit in string.digits)
    yield from string.punctuation
    yield from "，。、？！：；（）“”"
    pairs = ["".join(pair) for pair in itertools.product(string.ascii_lowercase, repeat=2)]
    yield from pairs
    yield from (f"##{pair}" for pair in pairs)
    yield from (chr(_FIRST_CHINESE + index) for index in range(_NUM_CHINESE))
    triples = ("".join(triple) for triple in itertools.product(string.ascii_lowercase, repeat=3))
    yield from triples
