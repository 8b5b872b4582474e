r"""Cohorts with known truth: families, linkage, linkage disequilibrium, a heritable trait.

Haplotypes are simulated one variant after the other, for everybody at once, so that a cohort of
any number of variants is written without being held:

- A founder's haplotype carries the effect allele where its uniform number is below the allele's
  frequency. Without linkage disequilibrium the number is a new one at each variant. With it, it
  is kept along the chromosome and renewed at rate 1/`ld` per base pair, which leaves frequencies
  as they are and gives variants of the same frequency a correlation of exp(-distance / `ld`).
- A gamete copies one of the parent's two haplotypes and changes to the other at crossovers, a
  Poisson process of one per Morgan (Haldane 1919: no interference), at 1 cM per million base
  pairs. The genomes that relatives share are therefore segments, and their realised relatedness
  varies around the pedigree's, as it does in nature.

The trait is y = C b + u + e with u = Z beta, Z the dosages standardised by the frequencies among
founders, beta ~ N(0, h2 / number of causal variants) and e ~ N(0, 1 - h2): nobody is inbred, and
the genetic variance is h2 out of 1. Frequencies are multiples of 2^-16, so that comparing 16-bit
numbers is exact.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes, read_genotypes
from bayeslmm.inputs.sources import MISSING, ArraySource
from bayeslmm.relatedness.pedigrees import Pedigree
from bayeslmm.runs.memory import require_memory
from bayeslmm.runs.progress import track
from bayeslmm.runs.provenance import provenance
from bayeslmm.runs.results import result_files, write_table

ENDINGS = (
    ".bed",
    ".bim",
    ".fam",
    ".pheno.tsv",
    ".u.tsv.gz",
    ".effects.tsv.gz",
    ".pedigree.tsv.gz",
    ".truth.json",
)
# What the covariates do to the trait, in standard deviations of y given them.
COVARIATE_EFFECTS = {"Intercept": 0.0, "sex": 0.25, "age": 0.01}
# Human autosomes (GRCh38), in millions of base pairs.
_LENGTHS = (
    *(249, 242, 198, 190, 182, 171, 159, 145, 138, 134, 135),
    *(133, 114, 107, 102, 90, 83, 80, 59, 64, 47, 51),
)
_BASES_PER_MORGAN = 1e8
_TEMPLATES = 256
_GENERATIONS = 3
_MARRIES = 0.35
# The two bits of a .bed for a dosage of 0, 1, 2, and for a missing one.
_CODES = np.array([0b11, 0b10, 0b00, 0b01], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class SimulatedCohort:
    """A simulated cohort with what it was made from.

    Attributes
    ----------
    genotypes : Genotypes
        Of the members of the cohort, on disk or in memory.
    phenotypes : DataFrame
        y, sex (1 male, 2 female) and age, indexed by sample id.
    u : Series
        The true genetic values, indexed by sample id.
    effects : DataFrame
        Per variant: id, frequency (among founders), effect (phenotype units per effect
        allele; 0 for variants that are not causal).
    pedigree : Pedigree
        Of the cohort and of the relatives between them who are not in it.
    truth : dict
        h2, s2_g, s2_e, b, seed, and the other parameters; realised_h2, the variance of u over
        that of u + e.
    """

    genotypes: Genotypes
    phenotypes: pd.DataFrame = field(repr=False)
    u: pd.Series = field(repr=False)
    effects: pd.DataFrame = field(repr=False)
    pedigree: Pedigree
    truth: dict[str, Any]


def simulate_cohort(
    path: str | os.PathLike[str] | None,
    n: int,
    m: int,
    *,
    families: int | Mapping[int, float] | None = None,
    unsampled: float = 0.25,
    h2: float = 0.5,
    causal: int | None = None,
    frequency: tuple[float, float] = (0.05, 0.5),
    ld: float | None = None,
    missing: float = 0.0,
    chromosomes: int = 22,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool | None = None,
) -> SimulatedCohort:
    """Simulate a cohort with known truth: to files, in blocks, or in memory.

    Parameters
    ----------
    path : path-like or None
        Prefix of the files to write (see Notes); None holds the genotypes in memory, one
        byte each.
    n, m : int
        Number of samples and of variants.
    families : int, or mapping of int to float, optional
        The largest number of relatives in a family, sizes from 1 to it being equally
        frequent; or the relative frequency of each size. By default nobody is related. A
        family has up to three generations: parents, children, sibs, grandparents, uncles and
        aunts, cousins, and husbands and wives, who are founders.
    unsampled : float
        Share of a family's members who are not in the cohort, such as the parents of sibs.
    h2 : float
        Heritability of the trait, 0 to 1.
    causal : int, optional
        Number of causal variants, chosen at random; all by default.
    frequency : (float, float)
        Smallest and largest minor-allele frequency among founders; between them it is
        uniform, and the effect allele is the minor one in half of the variants.
    ld : float, optional
        Base pairs over which the correlation of variants falls to 1/e; by default variants
        are independent in founders.
    missing : float
        Share of genotypes missing at random.
    chromosomes : int
        The first so many human autosomes, each with variants in proportion to its length.
    seed : int
        Same seed, same cohort, in memory or on disk.
    overwrite : bool
        Whether files of that name may be replaced.
    progress : bool, optional
        Whether to show a progress bar.

    Returns
    -------
    SimulatedCohort

    Raises
    ------
    InputError
        For parameters out of their range, files that exist, and too little memory.

    Notes
    -----
    Files: .bed, .bim, .fam (parents outside the cohort are named too), .pheno.tsv (FID, IID,
    y, sex, age), .u.tsv.gz (true genetic values), .effects.tsv.gz, .pedigree.tsv.gz (everybody,
    with unsampled members) and .truth.json. They appear when all are complete.

    References
    ----------
    Haldane JBS (1919). The combination of linkage values, and the calculation of distances
    between the loci of linked factors. J Genet 8:299.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> cohort = bl.simulate_cohort(None, 300, 500, families=8, h2=0.6, seed=1)
    >>> cohort.genotypes.shape
    (300, 500)
    >>> model = bl.LMM("y ~ sex + age", cohort.phenotypes, bl.grm(cohort.genotypes))
    >>> print(f"{model.reml().h2:.2f}")
    0.59
    """
    sizes = _family_sizes(families)
    _check(n, m, h2, causal, frequency, ld, missing, unsampled, chromosomes)
    rngs = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(5)]
    people = _people(n, sizes, unsampled, rngs[0])
    variants, p = _variants(m, chromosomes, frequency, rngs[1])
    effect = _effects(p, h2, causal, rngs[2])
    if path is None:
        require_memory(m * n + 32.0 * n, f"Holding {n:,} x {m:,} simulated genotypes")
    rows = _dosages(people, variants, p, ld, missing, rngs[3])
    u = np.zeros(n)
    table = variants.assign(frequency=p, effect=effect)[["id", "frequency", "effect"]]
    label = "in memory" if path is None else Path(path).name
    bar = track(rows, f"Simulating {label}", total=m, show=progress)

    def add(j: int, dosage: np.ndarray) -> None:
        if effect[j]:
            u[:] += np.append(effect[j] * (np.arange(3) - 2 * p[j]), 0.0)[dosage]

    truth: dict[str, Any] = {
        "h2": h2,
        "s2_g": h2,
        "s2_e": 1 - h2,
        "b": COVARIATE_EFFECTS,
        "seed": seed,
        "n": n,
        "m": m,
        "families": {str(k): w for k, w in sizes.items()},
        "unsampled": unsampled,
        "causal": m if causal is None else causal,
        "frequency": list(frequency),
        "ld": ld,
        "missing": missing,
        "chromosomes": chromosomes,
    } | provenance()
    if path is None:
        held = np.empty((m, n), dtype=np.int8)
        for j, (dosage, shown) in enumerate(bar):
            held[j] = shown
            add(j, dosage)
        genotypes = Genotypes(ArraySource(held), people.samples, variants, name="simulated")
        phenotypes = _phenotypes(people, u, h2, rngs[4], truth)
        return SimulatedCohort(
            genotypes, phenotypes, people.series(u), table, people.pedigree, truth
        )
    with result_files(path, ENDINGS, overwrite=overwrite) as aside:
        with open(f"{aside}.bed", "wb") as bed:
            bed.write(b"\x6c\x1b\x01")
            for j, (dosage, shown) in enumerate(bar):
                add(j, dosage)
                bed.write(_packed(shown).tobytes())
        phenotypes = _phenotypes(people, u, h2, rngs[4], truth)
        _write_tables(aside, people, variants, table, phenotypes, u, truth)
    return SimulatedCohort(
        read_genotypes(path), phenotypes, people.series(u), table, people.pedigree, truth
    )


# -- people ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _People:
    """Everybody, in order of generation: parents before their children.

    Attributes
    ----------
    father, mother : ndarray of int, shape (N,)
        Positions; -1 for founders.
    generation : ndarray of int, shape (N,)
    sex : ndarray of int, shape (N,)
        1 male, 2 female.
    members : ndarray of int, shape (n,)
        Positions of the cohort's, family by family.
    ids : Index
        Names of everybody, shape (N,).
    samples : DataFrame
        The cohort's table of samples.
    """

    father: np.ndarray
    mother: np.ndarray
    generation: np.ndarray
    sex: np.ndarray
    members: np.ndarray
    ids: pd.Index
    samples: pd.DataFrame

    @property
    def pedigree(self) -> Pedigree:
        return Pedigree(self.ids, self.father, self.mother)

    def series(self, values: np.ndarray) -> pd.Series:
        return pd.Series(values, self.samples.index, name="u")


@dataclass(frozen=True, eq=False)
class _Template:
    """One family: positions of the parents within it, and who is in the cohort."""

    father: np.ndarray
    mother: np.ndarray
    generation: np.ndarray
    sex: np.ndarray
    sampled: np.ndarray


def _grow(size: int, unsampled: float, rng: np.random.Generator) -> _Template:
    """A family with `size` members in the cohort, grown from one couple.

    Step by step a couple has a child, or a child of the family marries a founder and has one.
    """
    if size == 1:
        none, sex = np.array([-1]), rng.integers(1, 3, size=1)
        return _Template(none, none, rng.integers(0, _GENERATIONS, size=1), sex, np.array([True]))
    rows: list[tuple[int, int, int, int, bool]] = []

    def add(father: int, mother: int, generation: int, sex: int) -> int:
        rows.append((father, mother, generation, sex, bool(rng.random() >= unsampled)))
        return len(rows) - 1

    couples = [(add(-1, -1, 0, 1), add(-1, -1, 0, 2))]
    single: list[int] = []
    while sum(row[4] for row in rows) < size:
        if single and rng.random() < _MARRIES:
            one = single.pop(int(rng.integers(len(single))))
            spouse = add(-1, -1, rows[one][2], 3 - rows[one][3])
            couples.append((one, spouse) if rows[one][3] == 1 else (spouse, one))
            couple = couples[-1]
        else:
            couple = couples[int(rng.integers(len(couples)))]
        generation = rows[couple[0]][2] + 1
        child = add(*couple, generation, int(rng.integers(1, 3)))
        if generation < _GENERATIONS - 1:
            single.append(child)
    father, mother, depth, sexes, sampled = (np.array(column) for column in zip(*rows, strict=True))
    # A wedding in the last step may have brought one more than wanted.
    extra = np.flatnonzero(sampled)[size:]
    sampled[extra] = False
    return _Template(father, mother, depth, sexes, sampled)


def _people(n: int, sizes: dict[int, float], unsampled: float, rng: np.random.Generator) -> _People:
    share = np.array([sizes[k] for k in sizes]) / sum(sizes.values())
    drawn = rng.choice(
        np.array(list(sizes)), p=share, size=int(n / (share @ list(sizes)) * 1.2) + 9
    )
    while drawn.sum() < n:
        drawn = np.concatenate([drawn, drawn])
    count = int(np.searchsorted(np.cumsum(drawn), n)) + 1
    drawn = drawn[:count]
    drawn[-1] -= int(drawn.sum()) - n
    # Families of a size share a number of pedigrees, so that any number is made at once.
    templates: dict[tuple[int, int], _Template] = {}
    which = rng.integers(0, _TEMPLATES, size=count)
    keys = np.unique(np.column_stack([drawn, which]), axis=0)
    for members, number in keys.tolist():
        templates[members, number] = _grow(members, unsampled, rng)
    chosen = [templates[key] for key in zip(drawn.tolist(), which.tolist(), strict=True)]
    lengths = np.array([len(t.father) for t in chosen])
    offset = np.repeat(np.cumsum(lengths) - lengths, lengths)
    family = np.repeat(np.arange(count), lengths)

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(t, name) for t in chosen])

    father, mother = together("father"), together("mother")
    father, mother = (np.where(x < 0, -1, x + offset) for x in (father, mother))
    generation = np.where((father < 0) & (mother < 0), 0, together("generation"))
    order = np.argsort(generation, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    ids = pd.Index([f"i{k + 1}" for k in range(len(order))], name="id", dtype="str")
    sampled = np.flatnonzero(together("sampled"))
    named = np.append(ids.to_numpy(), "0")
    sex = together("sex")
    samples = pd.DataFrame(
        {
            "fid": np.char.add("f", (family[sampled] + 1).astype(str)),
            "iid": ids[sampled],
            "father": named[father[sampled]],
            "mother": named[mother[sampled]],
            "sex": sex[sampled].astype(str),
            "phenotype": np.nan,
        },
        index=ids[sampled],
    )
    samples["age"] = 78.0 - 22.0 * together("generation")[sampled]
    father, mother = (np.where(x < 0, -1, place[x])[order] for x in (father, mother))
    return _People(
        father, mother, generation[order], sex[order], place[sampled], ids[order], samples
    )


# -- variants --------------------------------------------------------------------------------


def _variants(
    m: int, chromosomes: int, frequency: tuple[float, float], rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of variants, and the effect allele's frequencies (m,), multiples of 2^-16."""
    length = np.array(_LENGTHS[:chromosomes]) * 10**6
    bounds = np.rint(m * np.cumsum(length) / length.sum()).astype(int)
    number = np.diff(bounds, prepend=0)
    chrom = np.repeat(np.arange(1, chromosomes + 1), number)
    pos = np.concatenate(
        [np.sort(rng.integers(1, high + 1, size=k)) for high, k in zip(length, number, strict=True)]
    )
    minor = rng.uniform(*frequency, size=m)
    p = np.where(rng.random(m) < 0.5, minor, 1 - minor)
    p = np.clip(np.rint(p * 2**16), 1, 2**16 - 1) / 2**16
    alleles = np.array(["A", "C", "G", "T"])
    ea = rng.integers(0, 4, size=m)
    table = pd.DataFrame(
        {
            "chrom": chrom.astype(str),
            "id": [f"rs{j + 1}" for j in range(m)],
            "pos": pos,
            "ea": alleles[ea],
            "oa": alleles[(ea + rng.integers(1, 4, size=m)) % 4],
            "cm": pos / _BASES_PER_MORGAN * 100,
        }
    )
    return table, p


def _effects(p: np.ndarray, h2: float, causal: int | None, rng: np.random.Generator) -> np.ndarray:
    """Effects per allele, shape (m,)."""
    m = len(p)
    k = m if causal is None else causal
    which = np.sort(rng.choice(m, size=k, replace=False))
    effect = np.zeros(m)
    effect[which] = rng.standard_normal(k) * np.sqrt(h2 / (k * 2 * p[which] * (1 - p[which])))
    return effect


def _dosages(
    people: _People,
    variants: pd.DataFrame,
    p: np.ndarray,
    ld: float | None,
    missing: float,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Dosages (n,) of one variant after the other: the true ones, and those with missing ones."""
    chrom, pos = variants.chrom.to_numpy(), variants.pos.to_numpy()
    n_founders = int((people.generation == 0).sum())
    N, n = len(people.father), len(people.members)
    # Haplotypes 2 i and 2 i + 1 of everybody; those of a child come from its father and mother.
    h = np.empty(2 * N, dtype=np.int8)
    parents = np.column_stack([people.father, people.mother])[n_founders:].ravel()
    source = 2 * parents
    bounds = 2 * (np.searchsorted(people.generation, np.arange(_GENERATIONS + 1)))
    slices = [slice(a, b) for a, b in pairwise(bounds[1:]) if b > a]
    level = np.empty(0, dtype=np.uint16)
    threshold = np.rint(p * 2**16).astype(np.uint16)
    holes = rng.spawn(1)[0]
    for j in range(len(p)):
        begins = j == 0 or chrom[j] != chrom[j - 1]
        gap = 0 if begins else pos[j] - pos[j - 1]
        if begins or ld is None:
            level = rng.integers(0, 2**16, size=2 * n_founders, dtype=np.uint16)
        elif ld is not None:
            renewed = rng.integers(0, 2 * n_founders, size=rng.poisson(2 * n_founders * gap / ld))
            level[renewed] = rng.integers(0, 2**16, size=len(renewed), dtype=np.uint16)
        np.less(level, threshold[j], out=h[: 2 * n_founders].view(bool))
        if len(source):
            if begins:
                source = 2 * parents + rng.integers(0, 2, size=len(source), dtype=np.int8)
            else:
                crossovers = rng.poisson(len(source) * gap / _BASES_PER_MORGAN)
                at = rng.integers(0, len(source), size=crossovers)
                np.bitwise_xor.at(source, at, 1)
            for part in slices:
                start = part.start - 2 * n_founders
                np.take(h, source[start : start + part.stop - part.start], out=h[part])
        dosage = (h[::2] + h[1::2])[people.members]
        shown = dosage
        if missing:
            shown = dosage.copy()
            # Places drawn more than once are one place: the rate is set so that the share is met.
            count = holes.poisson(-n * np.log1p(-missing))
            shown[holes.integers(0, n, size=count)] = MISSING
        yield dosage, shown


def _packed(dosage: np.ndarray) -> np.ndarray:
    """One variant of a .bed: four samples to a byte, the first in the lowest bits."""
    codes = _CODES[np.where(dosage == MISSING, 3, dosage)]
    codes = np.pad(codes, (0, -len(codes) % 4))
    return codes[::4] | codes[1::4] << 2 | codes[2::4] << 4 | codes[3::4] << 6


# -- the trait, and what is written -----------------------------------------------------------


def _phenotypes(
    people: _People, u: np.ndarray, h2: float, rng: np.random.Generator, truth: dict[str, Any]
) -> pd.DataFrame:
    n = len(u)
    sex = people.samples.sex.astype(int).to_numpy()
    age = np.round(people.samples.pop("age").to_numpy() + rng.normal(0, 4, size=n), 1)
    e = rng.normal(0, np.sqrt(1 - h2), size=n)
    b = COVARIATE_EFFECTS
    y = b["Intercept"] + b["sex"] * sex + b["age"] * age + u + e
    truth["realised_h2"] = float(np.var(u) / np.var(u + e))
    return pd.DataFrame({"y": y, "sex": sex, "age": age}, index=people.samples.index)


def _write_tables(
    aside: Path,
    people: _People,
    variants: pd.DataFrame,
    effects: pd.DataFrame,
    phenotypes: pd.DataFrame,
    u: np.ndarray,
    truth: dict[str, Any],
) -> None:
    plain = {"sep": "\t", "header": False, "index": False, "lineterminator": "\n"}
    samples = people.samples
    variants[["chrom", "id", "cm", "pos", "ea", "oa"]].to_csv(f"{aside}.bim", **plain)
    samples.assign(phenotype=-9).to_csv(f"{aside}.fam", **plain)
    ids = samples[["fid", "iid"]].set_axis(["FID", "IID"], axis=1)
    write_table(pd.concat([ids, phenotypes], axis=1), Path(f"{aside}.pheno.tsv"))
    write_table(ids.assign(u=u), Path(f"{aside}.u.tsv.gz"))
    write_table(effects, Path(f"{aside}.effects.tsv.gz"))
    named = np.append(people.ids.to_numpy(), "0")
    everybody = {"id": people.ids, "sire": named[people.father], "dam": named[people.mother]}
    in_cohort = people.ids.isin(samples.index).astype(int)
    write_table(
        pd.DataFrame(everybody).assign(in_cohort=in_cohort), Path(f"{aside}.pedigree.tsv.gz")
    )
    Path(f"{aside}.truth.json").write_text(json.dumps(truth, indent=1) + "\n")


# -- checks ----------------------------------------------------------------------------------


def _family_sizes(families: int | Mapping[int, float] | None) -> dict[int, float]:
    """Family sizes and their relative frequencies."""
    if families is None:
        return {1: 1.0}
    if isinstance(families, int):
        if families < 1:
            raise InputError(f"families={families}: the largest family has at least 1 member.")
        return dict.fromkeys(range(1, families + 1), 1.0)
    sizes = {int(size): float(weight) for size, weight in families.items()}
    bad = [size for size, weight in sizes.items() if size < 1 or not 0 <= weight < np.inf]
    if bad or not sum(sizes.values()) > 0:
        raise InputError(
            f"families={dict(families)}: expected sizes of 1 or more with frequencies that are "
            "not negative, and one above 0."
        )
    return {size: weight for size, weight in sizes.items() if weight}


def _check(
    n: int,
    m: int,
    h2: float,
    causal: int | None,
    frequency: tuple[float, float],
    ld: float | None,
    missing: float,
    unsampled: float,
    chromosomes: int,
) -> None:
    problems = {
        f"n={n}: at least 3 samples are needed": n < 3,
        f"m={m}: at least 1 variant is needed": m < 1,
        f"h2={h2}: expected 0 to 1": not 0 <= h2 <= 1,
        f"causal={causal}: expected 1 to m={m:,}": causal is not None and not 1 <= causal <= m,
        f"frequency={frequency}: expected 0 < low <= high <= 0.5": not (
            0 < frequency[0] <= frequency[1] <= 0.5
        ),
        f"ld={ld}: expected a number of base pairs above 0": ld is not None and not ld > 0,
        f"missing={missing}: expected 0 or more, and less than 1": not 0 <= missing < 1,
        f"unsampled={unsampled}: expected 0 to 0.9": not 0 <= unsampled <= 0.9,
        f"chromosomes={chromosomes}: expected 1 to {len(_LENGTHS)}": not (
            1 <= chromosomes <= len(_LENGTHS)
        ),
    }
    for problem, there in problems.items():
        if there:
            raise InputError(f"{problem}.")
