"""The command `predict`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bayeslmm.bases.basis import Basis
from bayeslmm.commands.data import Data
from bayeslmm.commands.data import run as open_run
from bayeslmm.commands.shared import (
    genotype_files,
    missing_codes,
    paragraph,
    parse_prior,
    percent,
    read_ids,
)
from bayeslmm.errors import InputError
from bayeslmm.inputs.genotypes import read_genotypes
from bayeslmm.inputs.phenotypes import may_use, read_phenotypes, relabel
from bayeslmm.model.accuracy import expected_correlations, measured_accuracy
from bayeslmm.model.heritability import is_two_valued
from bayeslmm.model.lmm import LMM
from bayeslmm.relatedness.dense import Relatedness
from bayeslmm.runs.results import write_table


def predict(
    data: Data,
    *,
    out: Path,
    new: str | None,
    new_pheno: Path | None,
    samples: Path | None,
    snp_effects: bool,
    prior: str,
    draws: int,
    prob: float,
    seed: int | None,
    overwrite: bool,
    threads: int | None,
) -> str:
    """Predict the phenotypes of other samples, to a folder; returns the summary."""
    from bayeslmm import plots

    formula = data.formula
    data.require_one_source()
    if new is not None and samples is not None:
        raise InputError("Name the samples to predict by --new or by --samples, not both.")
    if data.genotypes is None and (new is not None or snp_effects):
        raise InputError(
            "--new and --snp-effects need the genotypes that the relatedness is made of: give "
            "BFILE instead of --grm or --basis."
        )
    if not 0 < prob < 1:
        raise InputError(f"--prob must be between 0 and 1, but is {prob:g}.")
    h2_prior = parse_prior(prior, 0.0)
    with open_run(data, out, overwrite=overwrite, threads=threads) as run:
        table = data.table()
        codes = missing_codes(data.na)
        others = (
            None
            if new_pheno is None
            else read_phenotypes(
                new_pheno, id=data.id, missing=codes, needed=may_use(*data.formulas)
            )
        )
        genotypes = None if new is None else read_genotypes(new)
        kernel = data.kernel(table, run.clock)
        model = LMM(formula, table, kernel, h2_prior=h2_prior, missing=data.missing)
        _ = model.rotated
        run.clock(f"decomposition for {len(model.y):,} samples")
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
        run.clock(f"{len(predictions):,} samples predicted")
        if others is not None:
            measured = _measured(model, others, predictions.index, new_pheno or data.pheno)
            if measured.notna().any():
                predictions["y_observed"] = measured
        write_table(predictions, run.folder / "predictions.tsv", index=True)
        plots.save(run.folder / "predictions.png", plots.predictions, predictions)
        write_table(model.samples, run.folder / "samples.tsv", index=True)
        if snp_effects:
            write_table(model.snp_effects(tree), run.folder / "snp_effects.tsv")
            run.clock("effects of all SNPs")
        summary = run.finish(
            "predict",
            _predicted_lines(model, predictions, prob),
            inputs=[
                *(path for path in (new_pheno, samples) if path is not None),
                *([] if new is None else genotype_files(new)),
            ],
            new=new,
            prior=prior,
            h2_prior=repr(h2_prior),
            draws=draws,
            prob=prob,
            seed=tree.attrs["seed"],
        )
    return summary


def _measured(model: LMM, table: pd.DataFrame, ids: pd.Index, file: Path) -> pd.Series:
    """Phenotypes of predicted samples that were not analysed, where the table has them."""
    try:
        measured = model.phenotypes_of(table, ids)
    except InputError as error:
        raise InputError(
            f"{file}: {error} Phenotypes of predicted samples are compared with the predictions: "
            "leave that column out, or name what means missing in it (--na)."
        ) from error
    return measured.mask(ids.isin(model.ids))


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
            f"From {len(model.y):,} samples with {model.formula}; "
            f"{'h2 on the observed scale' if is_two_valued(model.y) else 'heritability'} "
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
    of_value, of_phenotype = expected_correlations(predictions)
    said = (
        f"Predicted and true genetic values should correlate {of_value:.2f}, predicted and "
        f"measured {name} {of_phenotype:.2f}, if the model is right."
    )
    found = measured_accuracy(predictions)
    if found is not None:
        said += f" What was measured and not used says: {found}."
    return lines + paragraph(said)
