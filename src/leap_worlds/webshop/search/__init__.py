"""WebShop's search, ranked exactly as the original's: Anserini 0.14.3 on Lucene 8.11, without Java.

What is searched for one product is one text (title, description, first bullet, options; `Product.contents`), in lower case.

It becomes terms (`tokenizer`, `analyzer`: word breaks of Unicode 9, a possessive 's, lower case, 33 stop words,
Porter's stemmer), and so does a query. BM25 with k1 = 0.9 and b = 0.4 scores them (`bm25`); of equal scores the smaller
ASIN comes first. One sparse matrix in memory-mapped arrays, 8 bytes a posting, is what all worker processes share
(`build`, `index`).

The ranking is part of the environment, so the tests compare it with recordings of Lucene, token by token and rank by
rank. It differs nowhere that is known, in 1,000 queries on 10,000 products and in 100,000 random strings of every class
of characters.
"""

from leap_worlds.webshop.search.build import build_index
from leap_worlds.webshop.search.index import SearchIndex

__all__ = ["SearchIndex", "build_index"]
