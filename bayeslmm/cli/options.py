"""Options that commands share, and groups of them that stand for one parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from bayeslmm.commands.data import Data

Folder = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are there already.")
]
Restart = Annotated[
    bool, typer.Option("--restart", help="Begin anew, though an unfinished run left parts.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Processors to use; all by default.")]
Maf = Annotated[
    float | None,
    typer.Option("--maf", min=0, max=0.5, help="Leave out variants with a rarer minor allele."),
]
MaxMissing = Annotated[
    float | None,
    typer.Option(
        "--max-missing", min=0, max=1, help="Leave out variants with more missing genotypes."
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep", help="Only the samples of this file: an id, or FID and IID, in each line."
    ),
]
Extract = Annotated[
    Path | None,
    typer.Option(
        "--extract",
        help="Only the variants of BFILE whose ids are in this file, in relatedness and tests.",
    ),
]
Scale = Annotated[
    Literal["standardized", "centered", "empirical", "dominance"] | None,
    typer.Option(
        help="How variants are weighted in the relatedness matrix: standardized (GCTA; the "
        "default), centered (GEMMA -gk 1), empirical (GEMMA -gk 2), or coded by dominance."
    ),
]
Chrom = Annotated[
    list[str] | None,
    typer.Option(help="Only this chromosome; again or with commas (1,2,X) for several."),
]
Pheno = Annotated[
    Path,
    typer.Option(
        help="Table with a header: sample ids in IID (and FID) or the first column, then traits "
        "and covariates. Tabs, commas or blanks; NA and -9 are missing."
    ),
]
Id = Annotated[
    str | None, typer.Option("--id", help="Column with the sample ids, if it is another one.")
]
Formula = Annotated[
    list[str],
    typer.Option(help='Trait and covariates, as "cd8 ~ sex + age". May be given several times.'),
]
Missing = Annotated[
    Literal["error", "drop"],
    typer.Option(help="What a sample without a covariate is: an error, or a reason to drop it."),
]
Na = Annotated[
    str | None,
    typer.Option(
        "--na",
        help="What means missing in the table besides an empty field, NA, NaN, N/A, . and -9; "
        "with commas between several.",
    ),
]
Grm = Annotated[
    str | None,
    typer.Option(
        "--grm", help="Relatedness made before: prefix of GCTA's .grm.bin, or GEMMA's .cXX.txt."
    ),
]
Basis = Annotated[
    Path | None, typer.Option("--basis", help="Eigenbasis made before by bayeslmm eigen.")
]
GENOTYPES = "Genotypes: .bed, .pgen, .bgen, .vcf, .bcf, VCF-Zarr, or the prefix of their files."
Genotypes = Annotated[
    str | None,
    typer.Argument(metavar="BFILE", help=f"{GENOTYPES} Or give --grm or --basis."),
]
Prior = Annotated[str, typer.Option(help='Prior on h2: uniform, or beta(a,b) as in "beta(2,3)".')]
Seed = Annotated[int | None, typer.Option(help="Makes the draws reproducible.")]
LocusGap = Annotated[
    float,
    typer.Option(help="Significant variants closer than this, in base pairs, are one locus."),
]


Background = Annotated[
    Literal["all", "loco", "rest+chrom"],
    typer.Option(
        help="Relatedness behind a variant: all (of all variants), loco (without its "
        "chromosome), rest+chrom (both, each with its own variance). In families: all."
    ),
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How phenotypes and genotypes are read: the options of all commands that fit a model."""

    id: Id = None
    missing: Missing = "error"
    na: Na = None
    scale: Scale = None
    maf: Maf = None
    max_missing: MaxMissing = None
    keep: Keep = None
    extract: Extract = None

    def data(
        self,
        *,
        genotypes: str | None,
        pheno: Path,
        formulas: list[str],
        grm: str | None = None,
        basis: Path | None = None,
    ) -> Data:
        """What the command works on."""
        from bayeslmm.commands.data import Data

        return Data(
            genotypes=genotypes,
            grm=grm,
            basis=basis,
            pheno=pheno,
            formulas=formulas,
            **asdict(self),
        )


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command in whose help a parameter that is a dataclass of options stands for each of them.

    Where `command` has ``reading: Reading``, the command line has --id, --missing and the
    others; their values come to `command` as one `Reading`.
    """
    types = get_type_hints(command, include_extras=True)
    shown: list[Parameter] = []
    groups: dict[str, type] = {}
    for name, parameter in signature(command).parameters.items():
        if is_dataclass(types[name]):
            groups[name] = types[name]
            own = get_type_hints(types[name], include_extras=True)
            shown += [
                Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default, annotation=own[f.name])
                for f in fields(types[name])
            ]
        else:
            shown.append(parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=types[name]))

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{f.name: given.pop(f.name) for f in fields(group)})
        command(**given)

    called.__signature__ = signature(command).replace(parameters=shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called
