"""Sentence embeddings: from raw text, pairs, labels, scores, documents, captions and domains."""
