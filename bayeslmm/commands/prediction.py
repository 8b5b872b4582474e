"""The command `predict`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.commands.shared import (
    genotype_files,
    kernel_files,
    make_kernel,
    one_formula,
    paragraph,
    parse_prior,
    percent,
    read_ids,
    require_one_source,
    write_summary,
)
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import read_genotypes
from bayeslmm.inputs.phenotypes import read_phenotypes, relabel
from bayeslmm.model.lmm import LMM
from bayeslmm.relatedness.dense import Relatedness
from bayeslmm.runs.progress import blas_threads
from bayeslmm.runs.results import PROVENANCE, Clock, result_folder, write_provenance, write_table


def predict(
    bfile: str | None,
    *,
    grm: str | None,
    basis: Path | None,
    pheno: Path,
    id: str | None,
    formulas: list[str],
    out: Path,
    new: str | None,
    new_pheno: Path | None,
    samples: Path | None,
    snp_effects: bool,
    prior: str,
    draws: int,
    prob: float,
    seed: int | None,
    scale: str | None,
    maf: float | None,
    max_missing: float | None,
    missing: str,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Predict the phenotypes of other samples, to a folder; returns the summary."""
    clock = Clock()
    formula = one_formula(formulas)
    require_one_source(bfile, grm, basis, scale, maf, max_missing)
    if new is not None and samples is not None:
        raise InputError("Name the samples to predict by --new or by --samples, not both.")
    if bfile is None and (new is not None or snp_effects):
        raise InputError(
            "--new and --snp-effects need the genotypes that the relatedness is made of: give "
            "BFILE instead of --grm or --basis."
        )
    if not 0 < prob < 1:
        raise InputError(f"--prob must be between 0 and 1, but is {prob:g}.")
    h2_prior = parse_prior(prior, 0.0)
    with result_folder(out, overwrite=overwrite) as folder, blas_threads(threads):
        table = read_phenotypes(pheno, id=id)
        others = None if new_pheno is None else read_phenotypes(new_pheno, id=id)
        genotypes = None if new is None else read_genotypes(new)
        kernel = make_kernel(
            bfile, grm, basis, table, [formula], missing, scale, maf, max_missing, clock
        )
        model = LMM(formula, table, kernel, h2_prior=h2_prior, missing=missing)  # type: ignore[arg-type]
        _ = model.rotated
        clock(f"decomposition for {len(model.y):,} samples")
        tree = model.posterior(draws, seed=seed)
        ids = None
        if genotypes is None:
            others = table if others is None else others
            ids = _samples_to_predict(model, kernel, samples)
        elif others is None and list(model.C.columns) != ["Intercept"]:
            raise InputError(
                f"The model has covariates ({', '.join(model.C.columns)}): name a table with those "
                "of the new samples, --new-pheno."
            )
        predicted_ids = genotypes.samples.index if genotypes is not None else ids
        if others is not None and predicted_ids is not None:
            others = relabel(others, predicted_ids)
        predictions = model.predict(
            genotypes, others, tree, samples=ids, prob=prob, seed=int(tree.attrs["seed"])
        )
        clock(f"{len(predictions):,} samples predicted")
        write_table(predictions, folder / "predictions.tsv", index=True)
        write_table(model.samples, folder / "samples.tsv", index=True)
        if snp_effects:
            write_table(model.snp_effects(tree), folder / "snp_effects.tsv")
            clock("effects of all SNPs")
        summary = write_summary(folder, _predicted_lines(model, predictions, prob))
        parameters = {
            "formula": formula,
            "h2_prior": repr(h2_prior),
            "draws": draws,
            "prob": prob,
            "seed": tree.attrs["seed"],
            "scale": scale,
            "maf": maf,
            "max_missing": max_missing,
            "missing": missing,
        }
        inputs = [str(pheno), *kernel_files(bfile, grm, basis)]
        inputs += [str(path) for path in (new_pheno, samples) if path is not None]
        inputs += genotype_files(new) if new is not None else []
        write_provenance(folder / PROVENANCE, inputs, parameters, seconds=clock.seconds)
    clock(f"written to {out}")
    return summary


def _samples_to_predict(model: LMM, kernel: Relatedness | Basis, path: Path | None) -> pd.Index:
    """Those of the file, or else all that have genotypes and were not analysed."""
    if path is None:
        ids = kernel.samples[~kernel.samples.isin(model.ids)]
        if not len(ids):
            raise InputError(
                "Every sample with genotypes has a phenotype: there is nobody to predict. Name "
                "new genotypes with --new, or samples with --samples."
            )
        return ids
    ids = pd.Index(read_ids(path, kernel), dtype="str")
    if ids.has_duplicates:
        raise InputError(f"{path}: sample '{ids[ids.duplicated()][0]}' comes twice.")
    return ids


def _predicted_lines(model: LMM, predictions: pd.DataFrame, prob: float) -> list[str]:
    name = model.formula.split("~")[0].strip()
    posterior = model.h2_posterior()
    low, high = posterior.hdi()
    analysed = int(predictions.index.isin(model.ids).sum())
    lines = [
        f"## Prediction of {name} for {len(predictions):,} samples",
        *paragraph(
            f"From {len(model.y):,} samples with {model.formula}; heritability "
            f"{percent(posterior.mean)} ({percent(low)} to {percent(high)})."
        ),
        *paragraph(
            f"Predicted {name}: {predictions.y_mean.min():.3g} to {predictions.y_mean.max():.3g}, "
            f"mean {predictions.y_mean.mean():.3g}. {100 * prob:g}% intervals are "
            f"{(predictions.y_high - predictions.y_low).mean():.3g} wide on average; the sd of "
            f"{name} is {model.y.std():.3g}."
        ),
        *paragraph(
            f"Genetic values u: sd {predictions.u_mean.std(ddof=0):.3g} among the samples, each "
            f"known to within {predictions.u_sd.mean():.3g} (its posterior sd, on average)."
        ),
    ]
    if analysed:
        lines.append(f"{analysed:,} of them were analysed themselves: new measurements are meant.")
    return lines
