"""Prompts as numbers: TF-IDF of words, then a truncated SVD (latent semantic analysis).

All that is learned is a few plain arrays. A sentence encoder's features (`models.encode`), if any, replace them:
`Opinions.features_ND`. Either way rows have norm 1, so that a product is a cosine.
"""

import functools
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from w2s.ensemble.ballots import NotApplicable
from w2s.pools.records import Learned, Opinions

BUCKETS = 2**14
ENOUGH = 4_000
# Words; a Chinese or Japanese character is a word of its own, because nothing separates words there.
WORD = r"(?u)[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+"


def features_of(arrays: Learned, prompt_N: Sequence[str]) -> np.ndarray:
    """features_ND (float32) of prompts: rows of norm 1, or 0 if none of the words is known."""
    weights_NB = weigh(count_words(tuple(prompt_N)), arrays["idf_B"])
    return unit(weights_NB @ arrays["components_BD"])


def fit_described(opinions: Opinions, *, dimensions: int, seed: int) -> Learned:
    """The arrays that `described` needs: none if the opinions have their own features, else `fit_features`."""
    if opinions.features_ND is not None:
        return {}
    return dict(fit_features(tuple(opinions.prompt_N), dimensions, seed))


def described(arrays: Learned, opinions: Opinions) -> np.ndarray:
    """features_ND of the questions, made as at the fit; NotApplicable if that is impossible."""
    if "idf_B" in arrays:
        return features_of(arrays, opinions.prompt_N)
    if opinions.features_ND is None:
        raise NotApplicable("it was fitted on an encoder's features, and these questions have none")
    return unit(opinions.features_ND.astype(np.float32))


# Several routers in a row are fitted on the same prompts, so the results for the last few sets of prompts are cached.
@functools.lru_cache(maxsize=4)
def fit_features(prompts: tuple[str, ...], dimensions: int = 64, seed: int = 0) -> Learned:
    """idf_B and components_BD (B hash buckets, float32) that `features_of` needs; at most `dimensions` of them.

    Latent semantic analysis (Deerwester et al. 1990) by the randomised range finder with power iterations (Halko,
    Martinsson and Tropp 2011, algorithm 4.4), on at most 4,000 of the prompts, drawn with `seed`: more change nothing.
    scikit-learn's TruncatedSVD is faster, but draws its start differently: recorded figures would change.
    Raises NotApplicable if there are no prompts.
    """
    rng = np.random.default_rng(seed)
    counts_NB = count_words(prompts)
    if not counts_NB.nnz:
        raise NotApplicable("the prompts were not recorded")
    if len(prompts) > ENOUGH:
        counts_NB = counts_NB[np.sort(rng.choice(len(prompts), ENOUGH, replace=False))]
    seen_B, n = np.bincount(counts_NB.indices, minlength=BUCKETS), counts_NB.shape[0]
    # A word that occurs in one prompt alone says nothing about others.
    idf_B = np.where(seen_B > 1, np.log((1 + n) / (1 + seen_B)) + 1, 0).astype(np.float32)
    if not idf_B.any():
        idf_B = (seen_B > 0).astype(np.float32)
    weights_NB = weigh(counts_NB, idf_B)
    basis_BD = orthonormal(rng.standard_normal((BUCKETS, min(dimensions + 8, n))))
    for _ in range(4):
        basis_BD = orthonormal(weights_NB.T @ (weights_NB @ basis_BD))
    within_ND = weights_NB @ basis_BD
    values_D, vectors_DD = np.linalg.eigh(within_ND.T @ within_ND)
    kept = np.flatnonzero(values_D > 1e-6 * values_D[-1])[::-1][:dimensions]
    return {"idf_B": idf_B, "components_BD": (basis_BD @ vectors_DD[:, kept]).astype(np.float32)}


@functools.lru_cache(maxsize=4)
def count_words(prompts: tuple[str, ...]) -> sparse.csr_matrix:
    """(N, B) log(1 + count) of the words, each in the bucket of its hash."""
    from sklearn.feature_extraction.text import HashingVectorizer  # imported here: it costs a second

    hashing = HashingVectorizer(token_pattern=WORD, n_features=BUCKETS, norm=None, alternate_sign=False)
    counts_NB = hashing.set_params(dtype=np.float32).transform(prompts)
    counts_NB.data = np.log1p(counts_NB.data)
    return counts_NB


def weigh(counts_NB: sparse.csr_matrix, idf_B: np.ndarray) -> sparse.csr_matrix:
    """TF-IDF with rows of norm 1 (0 where nothing is known)."""
    values = counts_NB.data * idf_B[counts_NB.indices]
    weights_NB = sparse.csr_matrix((values, counts_NB.indices, counts_NB.indptr), counts_NB.shape)
    norm_N = np.sqrt(np.asarray(weights_NB.multiply(weights_NB).sum(1)).ravel())
    return (sparse.diags_array(1 / np.where(norm_N > 0, norm_N, 1)) @ weights_NB).tocsr()


def unit(rows_ND: np.ndarray) -> np.ndarray:
    """The rows scaled to norm 1; rows of 0 stay 0."""
    norm_N1 = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return (rows_ND / np.where(norm_N1 > 1e-6, norm_N1, np.inf)).astype(np.float32)


def orthonormal(columns_BD: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span, by the small Gram matrix: 15 times faster than QR for tall ones."""
    columns_BD = columns_BD / np.linalg.norm(columns_BD)
    values_D, vectors_DD = np.linalg.eigh(columns_BD.T @ columns_BD)
    kept = values_D > 1e-10 * values_D[-1]
    return columns_BD @ (vectors_DD[:, kept] / np.sqrt(values_D[kept]))
