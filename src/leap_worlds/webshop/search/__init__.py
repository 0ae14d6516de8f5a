"""WebShop's search, ranked exactly as the original's: Anserini 0.14.3 on Lucene 8.11, without Java.

What is searched for one product is one text (title, description, first bullet, options; `Product.contents`), in lower case.

From text to terms (`analyzer`)
    Word breaks of Unicode Standard Annex 29 with the classes of Unicode 9, at most 255 UTF-16 units a token (`tokenizer`);
    a possessive 's goes; lower case; 33 stop words go; Porter's stemmer (`porter`). A query is analysed in the same way.

From terms to a score (`bm25`)
    BM25 with k1 = 0.9 and b = 0.4, over all terms of the query, each as often as the query has it. Lengths pass through one
    byte, and the arithmetic is in single precision where Lucene's is. Equal scores: the smaller ASIN comes first.

How it is kept and found (`build`, `storage`, `ranking`)
    One sparse matrix in memory-mapped arrays, 8 bytes a posting, that all worker processes share; a query adds up only those
    postings that can still change the first 50, and the answer is the same as if it had added up all.

The ranking is part of the environment: which products a student sees decides what it can buy. So the tests compare it with
recordings of Lucene, token by token and rank by rank. Where it differs: nowhere that is known, in 1,000 queries on 10,000
products and in a hundred thousand random strings of every class of characters.
"""

from leap_worlds.webshop.search.build import build_index
from leap_worlds.webshop.search.index import SearchIndex

__all__ = ["SearchIndex", "build_index"]
