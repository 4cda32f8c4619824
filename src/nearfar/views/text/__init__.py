"""Views of texts: on strings and on token ids."""
