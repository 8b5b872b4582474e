"""Which format a path has, told by what the file is, and which files belong to it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bayeslmm.errors import InputError
from bayeslmm.inputs.sources import Opened
from bayeslmm.runs.files import existing

_PREFIX_ENDINGS = (
    ".bed", ".pgen", ".bgen", ".bcf", ".vcf", ".vcf.gz", ".vcf.bgz", ".vcz", ".zarr",
)  # fmt: skip
_COMPANIONS = {
    ".bim": (".bed", ".pgen"),
    ".fam": (".bed", ".pgen"),
    ".pvar": (".pgen",),
    ".pvar.zst": (".pgen",),
    ".psam": (".pgen",),
    ".sample": (".bgen",),
}
_CHECKED = (".bed", ".pgen", ".bgen")
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")


@dataclass(frozen=True)
class GenotypeFiles:
    """A data set on disk: its format, its name for messages, and its files, the main one first."""

    format: str
    name: str
    files: list[Path] = field(default_factory=list)

    def open(self) -> Opened:
        """Read the tables and make the source."""
        return _OPENERS[self.format](self.files)


def locate(
    path: str | os.PathLike[str], sample_file: str | os.PathLike[str] | None = None
) -> GenotypeFiles:
    """Find out what a path is, from the content of the file, and which files belong to it.

    Parameters
    ----------
    path : path-like
        A genotype file or folder; or a prefix, to which one known ending can be appended; or
        one of the tables beside a genotype file.
    sample_file : path-like, optional
        The .sample of a .bgen, where it is not named like it.

    Raises
    ------
    InputError
        If nothing is there, if several formats are, or if the file is in none of them.
    """
    main = _main_file(Path(path))
    found = "zarr" if main.is_dir() else _format_of(main)
    if sample_file is not None and found != "bgen":
        raise InputError(f"{main}: a sample file belongs to a .bgen only, and this is none.")
    prefix = _stem(main)
    name = Path(prefix).name
    if found == "bed":
        files = [main, *(Path(f"{prefix}{ending}") for ending in (".bim", ".fam"))]
        for part in files[1:]:
            if not part.is_file():
                raise InputError(
                    f"{part}: no such file. A PLINK data set is three files beside each other: "
                    f"{name}.bed, {name}.bim (variants) and {name}.fam (samples)."
                )
    elif found == "pgen":
        pvar = _one_of(main, prefix, (".pvar", ".pvar.zst", ".bim"), "variants")
        psam = _one_of(main, prefix, (".psam", ".fam"), "samples")
        files = [main, pvar, psam]
    elif found == "bgen":
        sample = Path(f"{prefix}.sample") if sample_file is None else existing(sample_file)
        index = Path(f"{main}.bgi")
        files = [main, *(part for part in (sample, index) if part.is_file())]
    else:
        files = [main]
    return GenotypeFiles(found, name, files)


def _main_file(path: Path) -> Path:
    text = str(path)
    if path.is_file():
        for ending, mains in _COMPANIONS.items():
            if text.endswith(ending):
                return _only(text, [f"{text.removesuffix(ending)}{main}" for main in mains])
        if text.endswith(".bgi"):
            return existing(text.removesuffix(".bgi"))
        return path
    if path.is_dir() and any((path / mark).exists() for mark in _ZARR_MARKS):
        return path
    for ending in (*_PREFIX_ENDINGS, *_COMPANIONS, ".bgi"):
        if text.endswith(ending):
            if path.is_dir():
                raise InputError(
                    f"{path}: a folder, but no zarr store ({_ZARR_MARKS[0]} is absent)."
                )
            return existing(path)
    return _only(text, [f"{text}{ending}" for ending in _PREFIX_ENDINGS])


def _only(given: str, candidates: list[str]) -> Path:
    there = [Path(c) for c in candidates if Path(c).exists()]
    if len(there) == 1:
        return there[0]
    if there:
        raise InputError(
            f"{given}: several genotype files have this name ({', '.join(map(str, there))}). "
            "Name one of them in full."
        )
    for table, mains in _COMPANIONS.items():
        if Path(f"{given}{table}").is_file():
            return existing(f"{given}{mains[0]}")  # its table is there, it is not
    raise InputError(f"{given}: no such file, nor one with {', '.join(_PREFIX_ENDINGS)} behind it.")


def _one_of(main: Path, prefix: str, endings: tuple[str, ...], what: str) -> Path:
    there = [Path(f"{prefix}{e}") for e in endings if Path(f"{prefix}{e}").is_file()]
    # a .bim or .fam beside a .pvar or .psam belongs to a .bed of the same name
    native = [part for part in there if part.suffix not in (".bim", ".fam")]
    chosen = native or there
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise InputError(
            f"{main}: two tables of {what} ({', '.join(map(str, chosen))}). Remove one."
        )
    raise InputError(
        f"{main}: its table of {what} is absent: no such file "
        f"{' or '.join(f'{prefix}{e}' for e in endings)}."
    )


def _stem(main: Path) -> str:
    text = str(main)
    for ending in sorted(_PREFIX_ENDINGS, key=len, reverse=True):
        if text.endswith(ending):
            return text.removesuffix(ending)
    return text


def _format_of(path: Path) -> str:
    """The format by the first bytes of a file."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if head[:2] == b"\x6c\x1b":
        return "bed" if head[2:3] in (b"\x00", b"\x01", b"") else "pgen"
    if head[16:20] == b"bgen":
        return "bgen"
    text = _gunzip(head) if head[:2] == b"\x1f\x8b" else head
    if text.startswith(b"##fileformat=VCF") or text[:3] == b"BCF":
        return "vcf"
    if path.suffix in _CHECKED:
        return path.suffix[1:]  # its reader says what is wrong
    raise InputError(
        f"{path}: no genotype file that is known (PLINK .bed or .pgen, BGEN, VCF or BCF, VCF-Zarr "
        f"folder); it begins with {head[:4].hex(' ') or 'nothing'}. Formats are told by content, "
        "not by name."
    )


def _gunzip(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 64)
    except zlib.error:
        return b""


def _open_bed(files: list[Path]) -> Opened:
    from bayeslmm.inputs.plink_files import open_bed

    return open_bed(*files)


def _open_pgen(files: list[Path]) -> Opened:
    from bayeslmm.inputs.plink_files import open_pgen

    return open_pgen(*files)


def _open_bgen(files: list[Path]) -> Opened:
    from bayeslmm.inputs.bgen_files import open_bgen

    sample = [part for part in files[1:] if part.suffix != ".bgi"]
    index = [part for part in files[1:] if part.suffix == ".bgi"]
    return open_bgen(files[0], *(part[0] if part else None for part in (sample, index)))


def _open_vcf(files: list[Path]) -> Opened:
    from bayeslmm.inputs.vcf_files import open_vcf

    return open_vcf(files[0])


def _open_zarr(files: list[Path]) -> Opened:
    from bayeslmm.inputs.call_arrays import open_vcf_zarr

    return open_vcf_zarr(files[0])


_OPENERS: dict[str, Callable[[list[Path]], Opened]] = {
    "bed": _open_bed,
    "pgen": _open_pgen,
    "bgen": _open_bgen,
    "vcf": _open_vcf,
    "zarr": _open_zarr,
}
