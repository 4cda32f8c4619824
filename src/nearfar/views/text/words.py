"""Views that replace, insert, exchange, repeat or leave out words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from random import Random

from nearfar.errors import DataError
from nearfar.views.base import checked_range
from nearfar.views.text.base import WordView, core, counted, in_place_of, share_of, whole
from nearfar.views.text.thesaurus import STOP_WORDS, Thesaurus, Words


class _Known(WordView):
    """Base of the views that need words for others."""

    def __init__(self, thesaurus: Words, share: float, stop_words: Collection[str], p: float) -> None:
        super().__init__(p)
        self.thesaurus = Thesaurus.of(thesaurus)
        self.share = share_of(f"{type(self).__name__}: share", share)
        self.stop_words = frozenset(word.lower() for word in stop_words)

    def known(self, words: list[str]) -> list[int]:
        """The places of words that the thesaurus has others for and that are no stop words."""
        kept = [core(word)[1].lower() for word in words]
        return [place for place, word in enumerate(kept) if word not in self.stop_words and self.thesaurus(word)]


class SynonymReplacement(_Known):
    """``ceil(share * words)`` random words, no stop words, each replaced by one of its synonyms (EDA).

    After Wei and Zou (2019). Fewer where fewer words have synonyms. A synonym takes the marks around the word and its
    capital.

    Arguments: ``thesaurus``: a :class:`~nearfar.views.text.thesaurus.Thesaurus` (also of neighbours among word
    vectors), a mapping or a path; ``share``: of all words, default 0.1 (EDA); ``stop_words``: default
    :data:`~nearfar.views.text.thesaurus.STOP_WORDS`; ``p``: default 1.
    """

    def __init__(
        self, thesaurus: Words, share: float = 0.1, *, stop_words: Collection[str] = STOP_WORDS, p: float = 1.0
    ) -> None:
        super().__init__(thesaurus, share, stop_words, p)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        known = self.known(words)
        for place in draw.sample(known, min(counted(self.share, len(words)), len(known))):
            words[place] = in_place_of(words[place], draw.choice(self.thesaurus(core(words[place])[1])))
        return words


class RandomInsertion(_Known):
    """``ceil(share * words)`` times a synonym of a random word of the text, no stop word, put at a random place (EDA).

    Nothing where no word has synonyms. Arguments: as of :class:`SynonymReplacement`.
    """

    def __init__(
        self, thesaurus: Words, share: float = 0.1, *, stop_words: Collection[str] = STOP_WORDS, p: float = 1.0
    ) -> None:
        super().__init__(thesaurus, share, stop_words, p)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        known = [core(words[place])[1] for place in self.known(words)]
        if known:
            for _ in range(counted(self.share, len(words))):
                words.insert(draw.randrange(len(words) + 1), draw.choice(self.thesaurus(draw.choice(known))))
        return words


class RandomSwap(WordView):
    """``ceil(share * words)`` times two random words exchanged (EDA): the same words in another order.

    Arguments: ``share``: of the words, default 0.1 (EDA); ``p``: default 1.
    """

    def __init__(self, share: float = 0.1, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.share = share_of("RandomSwap: share", share)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        for _ in range(counted(self.share, len(words)) if len(words) > 1 else 0):
            one, other = draw.sample(range(len(words)), 2)
            words[one], words[other] = words[other], words[one]
        return words


class RandomDeletion(WordView):
    """Every word left out with probability ``rate``, by itself; where all would go, one random word stays (EDA).

    Arguments: ``rate``: default 0.1 (EDA); ``p``: default 1.
    """

    def __init__(self, rate: float = 0.1, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.rate = share_of("RandomDeletion: rate", rate)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        return [word for word in words if draw.random() >= self.rate] or [draw.choice(words)]


class StopWordRemoval(WordView):
    """Every stop word left out; a text of nothing else stays as it is. Nothing is random but whether a text is changed.

    A list that holds "not" makes a text of the opposite meaning; the default one does not.

    Arguments: ``stop_words``: default :data:`~nearfar.views.text.thesaurus.STOP_WORDS`; ``p``: default 1.
    """

    def __init__(self, stop_words: Collection[str] = STOP_WORDS, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.stop_words = frozenset(word.lower() for word in stop_words)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        return [word for word in words if core(word)[1].lower() not in self.stop_words]


class Repetition(WordView):
    """Random words said twice: the length changes and nothing else (ESimCSE; Wu et al., 2021).

    How many is drawn uniformly from 0 to ``max(2, floor(share * words))``, at most all words; different places.

    Arguments: ``share``: default 0.32 (ESimCSE); ``p``: default 1.
    """

    def __init__(self, share: float = 0.32, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.share = share_of("Repetition: share", share)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        most = min(max(2, math.floor(self.share * len(words) + 1e-9)), len(words))
        twice = set(draw.sample(range(len(words)), draw.randint(0, most)))
        return [word for place, each in enumerate(words) for word in [each] * (1 + (place in twice))]


class Crop(WordView):
    """A random run of words, ``max(1, floor(share * words))`` of them (COCO-LM; Meng et al., 2021).

    Arguments: ``share``: of the words that stay, a number or a range drawn for each text, default 0.9 (COCO-LM; for
    retrieval two independent crops of (0.05, 0.5): Contriever, Izacard et al., 2021); ``p``: default 1.
    """

    def __init__(self, share: float | tuple[float, float] = 0.9, *, p: float = 1.0) -> None:
        super().__init__(p)
        self.share = checked_range("Crop: share", share, 0, 1)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        length = max(1, math.floor(draw.uniform(*self.share) * len(words) + 1e-9))
        start = draw.randint(0, len(words) - length)
        return words[start : start + length]


class TfIdfReplacement(WordView):
    """Words that say little replaced by other words that say little (UDA; Xie et al., 2019).

    Word i of a text is replaced with probability ``min(1, rate * (C - t_i) / mean_j (C - t_j))``, where t is its TF-IDF
    (its share of the text times ``log(texts / texts with it)``) and C the largest of the text; so that ``rate`` of the
    words are replaced on average, never the one that says most. What comes in its place is drawn from the corpus with
    weights ``max S - S_w``, ``S_w = frequency * idf`` of the word: the words that say least, as UDA draws them.

    Arguments: ``document_frequency``: in how many texts each word stands; ``count``: how many texts there are, more
    than any frequency; ``frequency``: how often each word is used, default as often as texts with it; ``rate``:
    default 0.1; ``p``: default 1. See :meth:`of_corpus`.
    """

    def __init__(
        self,
        document_frequency: Mapping[str, int],
        count: int,
        *,
        frequency: Mapping[str, int] | None = None,
        rate: float = 0.1,
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.rate = share_of("TfIdfReplacement: rate", rate)
        whole("TfIdfReplacement: count", count)
        if not document_frequency:
            raise DataError("TfIdfReplacement: the corpus has no words to take in the place of others")
        self.count = count
        self.idf = {
            word: math.log(count / number) for word, number in document_frequency.items() if 0 < number <= count
        }
        used = document_frequency if frequency is None else frequency
        score = {word: used.get(word, 0) * idf for word, idf in self.idf.items()}
        most = max(score.values(), default=0.0)
        self.words = list(score)
        total, self._cumulative = 0.0, []
        for word in self.words:
            total += most - score[word]
            self._cumulative.append(total)

    @classmethod
    def of_corpus(cls, texts: Iterable[str], *, rate: float = 0.1, p: float = 1.0) -> TfIdfReplacement:
        """The view whose words and frequencies are those of ``texts``."""
        documents: Counter[str] = Counter()
        frequency: Counter[str] = Counter()
        count = 0
        for text in texts:
            words = [core(word)[1].lower() for word in text.split()]
            words = [word for word in words if word]
            frequency.update(words)
            documents.update(dict.fromkeys(words, 1))
            count += 1
        return cls(documents, max(count, 1), frequency=frequency, rate=rate, p=p)

    def change_words(self, words: list[str], draw: Random) -> list[str]:
        kept = [core(word)[1].lower() for word in words]
        times = Counter(kept)
        # a word that no text has is as rare as one that a single text has
        score = [times[word] / len(words) * self.idf.get(word, math.log(self.count)) for word in kept]
        room = [max(score) - each for each in score]
        mean = sum(room) / len(room)
        if not mean or not self._cumulative[-1]:
            return words
        for place, each in enumerate(room):
            if draw.random() < self.rate * each / mean and kept[place]:
                other = draw.choices(self.words, cum_weights=self._cumulative)[0]
                words[place] = in_place_of(words[place], other)
        return words
