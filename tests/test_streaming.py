import errno
import gzip
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from plink import write_plink

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.genome import scan_files, streaming
from bayeslmm.inputs.genotypes import Genotypes
from bayeslmm.runs import columns
from bayeslmm.runs.checkpoints import checkpoint
from bayeslmm.runs.results import write_table

N, M = 120, 400


@pytest.fixture
def parts(monkeypatch):
    """Small parts: ten of them."""
    monkeypatch.setattr(streaming, "_PART", 40)


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(3)
    x = rng.binomial(2, rng.uniform(0.1, 0.9, M), size=(N, M)).astype(float)
    x[rng.random(x.shape) < 0.01] = np.nan
    table = pd.DataFrame(
        {"id": [f"rs{j}" for j in range(M)], "chrom": np.repeat(["1", "2", "X", "Y"], 100)}
    )
    genotypes = Genotypes.from_array(x, [f"i{i}" for i in range(N)], table)
    y = pd.Series(np.nan_to_num(x[:, 7]) + rng.normal(size=N), genotypes.samples.index)
    return genotypes, bl.LMM(y, kernel=bl.grm(genotypes))


class Breaks:
    """A source that is interrupted after some reads."""

    def __init__(self, genotypes, reads):
        self.source, self.left = genotypes._source, reads
        self.identity = self.source.identity

    def read(self, variants, samples):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.source.read(variants, samples)


def breaking(genotypes, reads):
    return Genotypes(Breaks(genotypes, reads), genotypes.samples, genotypes.variants)


def interrupted(folder, model, genotypes, reads, **options):
    def run():
        with checkpoint(folder) as kept:
            bl.scan(model, breaking(genotypes, reads), kept=kept, **options)

    with pytest.raises(KeyboardInterrupt):
        run()


@pytest.mark.algebra
@pytest.mark.parametrize(
    "options",
    [
        {"tests": ("wald", "lrt", "score", "bayes"), "prior_odds": 1e-3},
        {"background": "loco"},
        {"coding": "genotypic"},
        {"dtype": "float64"},
    ],
    ids=["all", "loco", "genotypic", "float64"],
)
def test_an_interrupted_scan_ends_with_the_same_table(cohort, parts, tmp_path, options):
    genotypes, model = cohort
    options = {"block_size": 20, "threads": 1} | options
    whole = bl.scan(model, genotypes, **options)
    interrupted(tmp_path / "w", model, genotypes, 9, **options)
    assert list((tmp_path / "w").glob("scan*.npz"))
    rest = breaking(genotypes, 40)
    with checkpoint(tmp_path / "w") as kept:
        again = bl.scan(model, rest, kept=kept, **options)
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    assert {k: v for k, v in again.attrs.items() if k != "created_at"} == {
        k: v for k, v in whole.attrs.items() if k != "created_at"
    }


def test_finished_parts_are_not_read_again(cohort, parts, tmp_path):
    genotypes, model = cohort
    interrupted(tmp_path / "w", model, genotypes, 13, block_size=20, threads=1)
    rest = breaking(genotypes, 20)
    with checkpoint(tmp_path / "w") as kept:
        bl.scan(model, rest, kept=kept, block_size=20, threads=1)
    assert rest._source.left in (12, 13, 14)  # 20 blocks, less those of 6 or 7 whole parts


def test_another_scan_is_refused_and_what_differs_is_named(cohort, parts, tmp_path):
    genotypes, model = cohort
    interrupted(tmp_path / "w", model, genotypes, 9, block_size=20, threads=1)

    def goes_on(other=model, source=genotypes, **options):
        with checkpoint(tmp_path / "w") as kept:
            bl.scan(other, source, kept=kept, **({"block_size": 20} | options))

    with pytest.raises(bl.InputError, match=r"tests: was \['wald', 'bayes'\], is \['lrt'\]"):
        goes_on(tests="lrt")
    with pytest.raises(bl.InputError, match="dtype: was float32, is float64"):
        goes_on(dtype="float64")
    with pytest.raises(bl.InputError, match="model phenotype: was"):
        goes_on(model.with_phenotype(model.y[::-1].copy()))
    x = genotypes.to_array()
    x[5, 5] = 2 - np.nan_to_num(x[5, 5])
    edited = Genotypes.from_array(x, list(genotypes.samples.index), genotypes.variants)
    with pytest.raises(bl.InputError, match="genotypes: was"):
        goes_on(source=edited)
    goes_on()


def test_another_interaction_is_another_scan(cohort, parts, tmp_path):
    """Of covariates that are all in the model, and of one that is another's mirror image."""
    genotypes, model = cohort
    E = pd.DataFrame({"a": np.arange(N) % 2.0, "b": np.arange(N) % 3.0}, index=model.ids)
    model = model.with_covariates(E)

    def goes_on(interaction):
        with checkpoint(tmp_path / "w") as kept:
            return bl.scan(model, genotypes, "wald", interaction=interaction, kept=kept)

    first = goes_on("a")
    with pytest.raises(bl.InputError, match="second term interaction: was a, is b"):
        goes_on("b")
    with pytest.raises(bl.InputError, match="covariate: was"):
        goes_on(1 - E.a)
    pd.testing.assert_frame_equal(goes_on("a"), first)


@pytest.mark.parametrize("kept", ["folder", checkpoint("folder")], ids=["a path", "not entered"])
def test_what_is_no_checkpoint(cohort, kept):
    genotypes, model = cohort
    for work in (lambda: model.scan(genotypes, kept=kept), lambda: bl.grm(genotypes, kept=kept)):
        with pytest.raises(bl.InputError, match=r"with bl.checkpoint\(folder\) as kept.* is a "):
            work()


def test_several_phenotypes_are_kept_together(cohort, parts, tmp_path):
    genotypes, model = cohort
    models = {"a": model, "b": model.with_phenotype(model.y[::-1].copy())}
    whole = bl.scan(models, genotypes, block_size=20)
    with checkpoint(tmp_path / "w") as kept:
        again = bl.scan(models, genotypes, block_size=20, kept=kept)
    for name in models:
        pd.testing.assert_frame_equal(again[name], whole[name], check_exact=True)


def test_a_damaged_part_is_an_error(cohort, parts, tmp_path):
    genotypes, model = cohort
    interrupted(tmp_path / "w", model, genotypes, 9, block_size=20, threads=1)
    part = min((tmp_path / "w").glob("scan*.npz"))
    part.write_bytes(part.read_bytes()[:100])
    with (
        checkpoint(tmp_path / "w") as kept,
        pytest.raises(bl.InputError, match=f"{part.name}: damaged; remove it"),
    ):
        bl.scan(model, genotypes, block_size=20, kept=kept)


def test_a_full_disk_ends_a_scan_with_what_is_finished(cohort, parts, tmp_path, monkeypatch):
    genotypes, model = cohort
    whole = bl.scan(model, genotypes, block_size=20)
    save, saved = np.savez, []

    def full(file, **arrays):
        saved.append(1)
        if len(saved) == 4:
            file.write(b"PK half of it")
            raise OSError(28, "No space left on device")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with (
        pytest.raises(bl.InputError, match=r"No space left on device.*make room"),
        checkpoint(tmp_path / "w") as kept,
    ):
        bl.scan(model, genotypes, kept=kept, block_size=20)
    assert len(list((tmp_path / "w").glob("scan*.npz"))) == 3
    with checkpoint(tmp_path / "w") as kept:
        again = bl.scan(model, genotypes, kept=kept, block_size=20)
    assert len(saved) == 4 + 7
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


def test_a_file_that_cannot_be_read_in_the_middle(cohort, parts, tmp_path):
    genotypes, model = cohort
    ids = [(i, i) for i in genotypes.samples.index]
    write_plink(tmp_path / "c", np.nan_to_num(genotypes.to_array()), samples=ids)
    opened = bl.read_genotypes(tmp_path / "c.bed")
    whole = (tmp_path / "c.bed").read_bytes()
    before = bl.scan(model, opened, block_size=20)
    opened = bl.read_genotypes(tmp_path / "c.bed")
    source, reads = opened._source, []

    def read(variants, samples):
        reads.append(1)
        if len(reads) == 10:  # the disk loses the end of the file
            (tmp_path / "c.bed").write_bytes(whole[: len(whole) // 2])
            vars(source._local).clear()
        return type(source).read(source, variants, samples)

    source.read = read
    with (
        pytest.raises(bl.InputError, match=r"c\.bed: reading failed"),
        checkpoint(tmp_path / "w") as kept,
    ):
        bl.scan(model, opened, kept=kept, block_size=20, threads=1)
    assert 3 <= len(list((tmp_path / "w").glob("scan*.npz"))) <= 5
    (tmp_path / "c.bed").write_bytes(whole)
    with checkpoint(tmp_path / "w") as kept:
        again = bl.scan(model, bl.read_genotypes(tmp_path / "c.bed"), kept=kept, block_size=20)
    pd.testing.assert_frame_equal(again, before, check_exact=True)


KILLED = """
import sys, time
from pathlib import Path
import numpy as np
import bayeslmm as bl
from bayeslmm.genome import streaming
from bayeslmm.runs.results import write_table
streaming._PART = 40
genotypes = bl.Genotypes.from_array(np.load(sys.argv[1]))
model = bl.LMM(np.load(sys.argv[2]), kernel=bl.grm(genotypes))
read = genotypes._source.read
def slow(variants, samples):
    print("block", flush=True)
    time.sleep(0.03)
    return read(variants, samples)
if len(sys.argv) > 5:
    object.__setattr__(genotypes._source, "read", slow)
with bl.checkpoint(sys.argv[3]) as kept:
    hits = model.scan(genotypes, kept=kept, block_size=20, threads=2)
write_table(hits, Path(sys.argv[4]))
"""


def test_a_killed_scan_ends_with_the_same_bytes(cohort, tmp_path):
    genotypes, model = cohort
    np.save(tmp_path / "x.npy", np.nan_to_num(genotypes.to_array()).astype(np.float32))
    np.save(tmp_path / "y.npy", model.y)
    tables = [tmp_path / side / "hits.tsv.gz" for side in ("a", "b")]
    for table in tables:
        table.parent.mkdir()
    common = [sys.executable, "-c", KILLED, tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run([*common, tmp_path / "one", tables[0]], check=True)
    running = subprocess.Popen(
        [*common, tmp_path / "two", tables[1], "slowly"],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(9):
        running.stdout.readline()
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    assert not tables[1].exists()
    subprocess.run([*common, tmp_path / "two", tables[1]], check=True)
    assert tables[0].read_bytes() == tables[1].read_bytes()


# -- to a file ---------------------------------------------------------------------------------


def content(path):
    return gzip.decompress(path.read_bytes())


@pytest.mark.algebra
@pytest.mark.parametrize(
    "options",
    [
        {"tests": ("wald", "lrt", "score", "bayes"), "prior_odds": 1e-3},
        {"background": "loco"},
        {"coding": "genotypic"},
    ],
    ids=["all", "loco", "genotypic"],
)
def test_a_table_written_by_parts_is_that_in_memory(cohort, parts, tmp_path, options):
    genotypes, model = cohort
    # chromosomes that come and go in the file
    order = np.argsort(np.arange(M) % 7, kind="stable")
    mixed = genotypes.variants.iloc[order].reset_index(drop=True)
    genotypes = Genotypes.from_array(genotypes.to_array(), genotypes.samples.index, mixed)
    if "background" in options:
        model = bl.LMM(pd.Series(model.y, model.ids), kernel=bl.grm(genotypes))
    options = {"block_size": 20, "threads": 1} | options
    whole = bl.scan(model, genotypes, **options)
    hits = bl.scan_to_file(model, genotypes, tmp_path / "hits.tsv.gz", **options)
    write_table(whole, tmp_path / "whole.tsv.gz")
    assert content(hits.path) == content(tmp_path / "whole.tsv.gz")
    assert {k: v for k, v in hits.attrs.items() if k != "created_at"} == {
        k: v for k, v in whole.attrs.items() if k != "created_at"
    }
    about = ["chrom", "pos", "id", "ea", "oa", "neg_log10_p"]
    pd.testing.assert_frame_equal(hits.overview, whole[about], check_exact=True)
    rows = [399, 3, 41]
    pd.testing.assert_frame_equal(hits.rows(rows), whole.iloc[rows], rtol=1e-5)
    again = pd.concat(hits.parts(), ignore_index=True)
    pd.testing.assert_frame_equal(again, whole, rtol=1e-5)
    assert not (tmp_path / "hits.tsv.gz.partial").exists()
    wide = bl.scan_to_file(model, genotypes, tmp_path / "hits.parquet", **options)
    pd.testing.assert_frame_equal(pd.read_parquet(wide.path), whole, check_exact=True)
    pd.testing.assert_frame_equal(wide.rows(rows), whole.iloc[rows], check_exact=True)


def test_cases_and_controls_written_by_parts(cohort, parts, tmp_path):
    genotypes, model = cohort
    case = pd.Series(np.where(model.y > model.y.mean(), "yes", "no"), model.ids)
    one = bl.LMM("y ~ 1", pd.DataFrame({"y": case}))
    options = {"family": "binomial", "block_size": 20, "threads": 1}
    whole = bl.scan(one, genotypes, **options)
    hits = bl.scan_to_file(one, genotypes, tmp_path / "hits.tsv", **options)
    write_table(whole, tmp_path / "whole.tsv")
    assert hits.path.read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert hits.attrs["methods"] == whole.attrs["methods"]
    assert hits.attrs["n_variants"] == M
    pd.testing.assert_frame_equal(hits.rows([7]), whole.iloc[[7]], rtol=1e-5)


@pytest.mark.parametrize("ending", ["tsv.gz", "parquet"])
def test_an_interrupted_file_has_the_same_bytes(cohort, parts, tmp_path, ending):
    genotypes, model = cohort
    options = {"block_size": 20, "threads": 1}
    whole, broken = tmp_path / f"whole.{ending}", tmp_path / f"broken.{ending}"
    model.scan_to_file(genotypes, whole, **options)
    with pytest.raises(KeyboardInterrupt):
        bl.scan_to_file(model, breaking(genotypes, 9), broken, **options)
    assert not broken.exists()
    assert list(broken.with_name(f"broken.{ending}.partial").glob("scan*.npz"))
    rest = breaking(genotypes, 16)
    bl.scan_to_file(model, rest, broken, **options)
    assert broken.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match="exists already and is kept"):
        bl.scan_to_file(model, genotypes, whole, **options)


def test_a_file_is_written_with_a_part_or_two_in_memory(cohort, parts, tmp_path, monkeypatch):
    genotypes, model = cohort
    read, most = columns.KeptColumns.read, []

    def watched(self, start, stop):
        found = read(self, start, stop)
        most.append(len(self._last))
        return found

    monkeypatch.setattr(columns.KeptColumns, "read", watched)
    bl.scan_to_file(model, genotypes, tmp_path / "hits.tsv.gz", block_size=20, threads=1)
    assert max(most) == 1
    assert len(most) >= 20  # ten parts, twice


def test_a_full_disk_at_the_end_keeps_what_is_finished(cohort, parts, tmp_path, monkeypatch):
    genotypes, model = cohort
    options = {"block_size": 20, "threads": 1}

    def full(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "hits.tsv.gz"
    with monkeypatch.context() as patched:
        patched.setattr(scan_files, "compressed", full)
        with pytest.raises(InputError, match=r"hits\.tsv\.gz: cannot be written \(No space left"):
            bl.scan_to_file(model, genotypes, path, **options)
    assert not path.exists()
    nothing = breaking(genotypes, 0)  # all is computed: no block is read again
    bl.scan_to_file(model, nothing, path, **options)
    assert len(pd.read_csv(path, sep="\t")) == M


# -- from a shell ------------------------------------------------------------------------------

SHELL = """
import sys, time
from bayeslmm import cli
from bayeslmm.inputs import genotypes
from bayeslmm.genome import streaming
streaming._PART = 256
genotypes.Genotypes.block_size = lambda self: 512
read = genotypes.Genotypes.centered_block
def slow(self, *span, **options):
    print("block", flush=True)
    time.sleep(0.1)
    return read(self, *span, **options)
if sys.argv[1] == "slowly":
    genotypes.Genotypes.centered_block = slow
sys.argv[1:] = sys.argv[2:]
cli.main()
"""


def shell(*arguments, slowly=False):
    first = "slowly" if slowly else "quickly"
    return [sys.executable, "-c", SHELL, first, *map(str, arguments)]


def test_a_killed_command_goes_on(tmp_path):
    from typer.testing import CliRunner

    from bayeslmm import cli

    def run(*arguments):
        return CliRunner().invoke(cli.app, [str(a) for a in arguments])

    assert run("demo", "--files", tmp_path).exit_code == 0
    prefix, pheno = tmp_path / "mouse_hs1940", tmp_path / "few.tsv"
    table = pd.read_csv(f"{prefix}.pheno.tsv", sep="\t")
    table.head(250).to_csv(pheno, sep="\t", index=False, na_rep="NA")
    scan = ["scan", prefix, "--pheno", pheno, "--formula", "cd8 ~ sex", "--threads", 1]
    scan += ["--chrom", "1,2,3"]
    subprocess.run(shell(*scan, "--out", tmp_path / "a" / "r"), check=True, capture_output=True)
    out = tmp_path / "b" / "r"
    running = subprocess.Popen(
        shell(*scan, "--out", out, slowly=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    partial = out.with_name("r.partial")
    for _ in running.stdout:
        if len(list(partial.glob("cd8-scan*.npz"))) >= 2:
            break
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    assert not out.exists()
    running = subprocess.Popen(
        shell(*scan, "--out", out, slowly=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    running.stdout.readline()
    second = subprocess.run(shell(*scan, "--out", out), check=False, capture_output=True, text=True)
    assert second.returncode == 2
    assert "in use: another process does the same work" in second.stderr
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stdout.close()
    other = subprocess.run(
        shell(*scan, "--out", out, "--test", "lrt"), check=False, capture_output=True, text=True
    )
    assert other.returncode == 2
    assert "was started otherwise" in other.stderr
    assert "is ['lrt']" in other.stderr
    done = subprocess.run(shell(*scan, "--out", out), check=True, capture_output=True, text=True)
    assert "finished parts are there; going on" in done.stderr
    assert "variants are there already" in done.stderr
    assert not partial.exists()
    for name in ("scan_cd8.tsv.gz", "excluded_cd8.tsv", "samples_cd8.tsv", "summary.txt"):
        assert (out / name).read_bytes() == (tmp_path / "a" / "r" / name).read_bytes()
