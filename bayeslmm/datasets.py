"""Real data that come with the package, to learn and to test with, offline."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pandas as pd

from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import Genotypes, read_genotypes
from bayeslmm.runs.files import refuse_existing, write_aside

NAME = "mouse_hs1940"
SHA256 = {
    "mouse_hs1940.bed.gz": "97b4eccf1a660271c920432341736a6a31e58452dfaa9ae6a996afc083a95ada",
    "mouse_hs1940.bim.gz": "0b3a400e5e9f007ca6ad860bf8bd2614c757609bff89f3ec7d723bded9a080a1",
    "mouse_hs1940.fam.gz": "60fd73e2c7aaf56969c3da7c534add01ba2ea0b8398666f9ec68ac7f075c1ed5",
    "mouse_hs1940.pheno.txt.gz": "5c1cb9b6d394d6d27f0f2dd4ab9166fc565fcd9ed51f020eb9da17ac91ba0368",
}
DESCRIPTION = """\
Heterogeneous-stock mice with the phenotypes CD8 and MCH.

1,940 mice descended from eight inbred strains, 12,226 SNPs on 19 autosomes. cd8: proportion
of CD8+ cells; mch: mean corpuscular haemoglobin; both normalised to mean 0 and variance 1.
Sibs share a family (the pair of their parents' fields).

Valdar W et al. (2006). Genome-wide genetic association of complex traits in heterogeneous
stock mice. Nat Genet 38:879. doi:10.1038/ng1840
In the form in which GEMMA distributes them as its example."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Genotypes and phenotypes that belong together.

    Attributes
    ----------
    genotypes : Genotypes
        In memory.
    phenotypes : DataFrame
        One row per sample, indexed by sample id, in the order of the genotypes.
    description : str
        What the data are, and whom to cite; the first line is a title.
    """

    genotypes: Genotypes
    phenotypes: pd.DataFrame
    description: str

    def __repr__(self) -> str:
        columns = []
        for name, column in self.phenotypes.items():
            present = f"{name}: {column.notna().sum():,} present"
            if not pd.api.types.is_numeric_dtype(column):
                present += f", {column.nunique():,} levels"
            columns.append(present)
        return "\n".join(
            [
                f"<Dataset: {self.description.splitlines()[0]}",
                f"  genotypes  {self.genotypes!r}",
                *(f"  phenotypes {line}" if i == 0 else f"             {line}"
                  for i, line in enumerate(columns)),
                ">",
            ]
        )  # fmt: skip


def mouse_hs1940() -> Dataset:
    """1,940 heterogeneous-stock mice, 12,226 SNPs, phenotypes CD8 and MCH.

    Returns
    -------
    Dataset
        `genotypes`: A1 of the .bim, the minor allele, is counted; none is missing.
        1,926 SNPs have position -9 (unknown) and 1,230 are monomorphic. `phenotypes`:
        cd8 and mch (float, NaN missing), sex (category F, M), family (the parents of a
        full-sib family; 173 families).

    Raises
    ------
    InputError
        If a file of the installed package is damaged or absent.

    References
    ----------
    Valdar W et al. (2006). Genome-wide genetic association of complex traits in heterogeneous
    stock mice. Nat Genet 38:879. doi:10.1038/ng1840

    Examples
    --------
    >>> from bayeslmm import datasets
    >>> mice = datasets.mouse_hs1940()
    >>> mice
    <Dataset: Heterogeneous-stock mice with the phenotypes CD8 and MCH.
      genotypes  <Genotypes mouse_hs1940: 1,940 samples x 12,226 variants, 19 chromosomes>
      phenotypes cd8: 1,410 present
                 mch: 1,580 present
                 sex: 1,940 present, 2 levels
                 family: 1,940 present, 173 levels
    >
    >>> mice.phenotypes.head(2).round(3)
                  cd8    mch sex                     family
    id
    A048005080  0.225 -0.285   F  H2.3:C5.2(3)xH2.3:G2.2(3)
    A048006063 -0.975 -2.334   M  E5.2:H5.1(4)xE5.2:D4.1(4)
    """
    with tempfile.TemporaryDirectory(prefix="bayeslmm-") as folder:
        prefix = Path(folder) / NAME
        for ending in (".bed", ".bim", ".fam"):
            Path(f"{prefix}{ending}").write_bytes(_unpacked(ending))
        genotypes = read_genotypes(prefix).load()
    phenotypes = _phenotypes().drop(columns="FID").rename_axis("id")
    return Dataset(genotypes, phenotypes, DESCRIPTION)


def write_mouse_hs1940(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write the mice as PLINK files and a phenotype table, to try the command line with.

    Parameters
    ----------
    folder : path-like
        Made if it is not there. Gets ``mouse_hs1940.bed``, ``.bim``, ``.fam`` (as
        distributed, with its 11 columns) and ``mouse_hs1940.pheno.tsv``, with the
        columns FID, IID, cd8, mch, sex and family, NA for missing.
    overwrite : bool
        Whether files of these names may be replaced.

    Returns
    -------
    Path
        The prefix of the PLINK files.

    Raises
    ------
    InputError
        If one of the files exists and `overwrite` is false (none is written then).

    Examples
    --------
    >>> import tempfile
    >>> from bayeslmm import datasets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     prefix = datasets.write_mouse_hs1940(folder)
    ...     print(sorted(path.name for path in prefix.parent.iterdir()))
    ['mouse_hs1940.bed', 'mouse_hs1940.bim', 'mouse_hs1940.fam', 'mouse_hs1940.pheno.tsv']
    """
    prefix = Path(folder) / NAME
    contents = {Path(f"{prefix}{ending}"): _unpacked(ending) for ending in (".bed", ".bim", ".fam")}
    table = _phenotypes().reset_index()[["FID", "IID", "cd8", "mch", "sex", "family"]]
    text = table.to_csv(sep="\t", index=False, na_rep="NA", lineterminator="\n")
    contents[Path(f"{prefix}.pheno.tsv")] = text.encode()
    for path in contents:
        refuse_existing(path, overwrite=overwrite)
    for path, content in contents.items():
        with write_aside(path, overwrite=overwrite) as aside:
            aside.write_bytes(content)
    return prefix


def _unpacked(ending: str) -> bytes:
    """Contents of an embedded file, decompressed; an error if it is not as shipped."""
    name = f"{NAME}{ending}.gz"
    place = resources.files("bayeslmm") / "data" / NAME / name
    again = "The installed package is incomplete or damaged: install bayeslmm again."
    try:
        packed = place.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{place}: no such file. {again}") from error
    found = hashlib.sha256(packed).hexdigest()
    if found != SHA256[name]:
        raise InputError(
            f"{place}: its SHA-256 is {found[:12]}..., expected {SHA256[name][:12]}.... {again}"
        )
    return gzip.decompress(packed)


def _phenotypes() -> pd.DataFrame:
    """Columns FID, cd8, mch, sex and family, indexed by IID, in .fam order."""
    fam = pd.read_csv(
        io.BytesIO(_unpacked(".fam")),
        sep="\t",
        header=None,
        usecols=range(5),
        names=["FID", "IID", "father", "mother", "sex"],
        dtype=str,
    )
    values = pd.read_csv(io.BytesIO(_unpacked(".pheno.txt")), sep="\t", header=None, usecols=[0, 5])
    return pd.DataFrame(
        {
            "FID": fam["FID"],
            "cd8": values[0],
            "mch": values[5],
            "sex": pd.Categorical(fam["sex"].map({"1": "M", "2": "F"}), categories=["F", "M"]),
            "family": fam["father"] + "x" + fam["mother"],
        }
    ).set_index(pd.Index(fam["IID"], name="IID"))
