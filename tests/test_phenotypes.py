import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeslmm as bl
from bayeslmm.errors import InputError
from bayeslmm.inputs.formulas import design_from_arrays, design_from_formula
from bayeslmm.inputs.phenotypes import may_use, read_phenotypes

ROWS = [["001", "1.5", "F"], ["002", "NA", "M"], ["010", "-9", "F"], ["7", "-2e-1", "NA"]]


def written(path, rows, header=("IID", "bmi", "sex"), sep="\t", end="\n"):
    text = end.join(sep.join(row) for row in [header, *rows]) + end
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        file.write(text)
    return path


def index(*ids):
    return pd.Index(ids, name="id", dtype="str")


# -- reading -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sep", "end"),
    [
        ("x.tsv", "\t", "\n"),
        ("x.csv", ",", "\n"),
        ("x.csv", ", ", "\n"),
        ("x.csv", ";", "\n"),
        ("x.txt", "  ", "\n"),
        ("x.txt", " \t", "\n"),
        ("x.tsv.gz", "\t", "\n"),
        ("x.csv.gz", ",", "\r\n"),
        ("x.txt", " ", "\n\n"),
    ],
)
@pytest.mark.parametrize("header", ["IID", "#IID", "mouse"])
def test_text_formats(tmp_path, name, sep, end, header):
    path = written(tmp_path / name, ROWS, (header, "bmi", "sex"), sep, end)
    table = read_phenotypes(path)
    assert table.index.tolist() == ["001", "002", "010", "7"], "zeros stay"
    assert table.index.name == "id"
    np.testing.assert_array_equal(table.bmi, [1.5, np.nan, np.nan, -0.2])
    assert table.sex.tolist()[:3] == ["F", "M", "F"]
    assert table.sex.isna().tolist() == [False, False, False, True]
    assert ("IID" in table) == ("IID" in header)


def test_byte_order_mark_and_quotes(tmp_path):
    (tmp_path / "x.csv").write_text('\ufeffid,"b, c",d\n"a, 1",2,"x ""y"""\n')
    table = read_phenotypes(tmp_path / "x.csv")
    assert table.index.tolist() == ["a, 1"]
    assert table["b, c"].tolist() == [2]
    assert table.d.tolist() == ['x "y"']


@pytest.mark.parametrize("header", [("FID", "IID"), ("#FID", "IID")])
def test_fid_and_iid(tmp_path, header):
    rows = [["fa", "1", "2.0"], ["fb", "2", "3.0"]]
    table = read_phenotypes(written(tmp_path / "x.txt", rows, (*header, "y"), " "))
    assert table.index.tolist() == ["1", "2"]
    assert table[["FID", "IID", "y"]].iloc[1].tolist() == ["fb", "2", 3.0]
    rows[1][1] = "1"
    table = read_phenotypes(written(tmp_path / "x.txt", rows, (*header, "y"), " "))
    assert table.index.tolist() == ["fa_1", "fb_1"]


def test_iid_that_is_not_the_first_column(tmp_path):
    table = read_phenotypes(written(tmp_path / "x.tsv", [["2.5", "07"]], ("y", "IID")))
    assert table.index.tolist() == ["07"]
    assert table.y.tolist() == [2.5]


def test_id_by_name(tmp_path):
    path = written(tmp_path / "x.tsv", ROWS, ("n", "bmi", "mouse"))
    (tmp_path / "y.tsv").write_text("n\tbmi\tmouse\n1\t2\t007\n2\t3\t07\n")
    table = read_phenotypes(tmp_path / "y.tsv", id="mouse")
    assert table.index.tolist() == ["007", "07"]
    assert table.n.tolist() == [1, 2]
    assert list(table.columns) == ["n", "bmi"]
    with pytest.raises(InputError, match=r"no id column 'tag'\. Columns: 'n', 'bmi', 'mouse'"):
        read_phenotypes(path, id="tag")


def test_parquet(tmp_path):
    table = pd.DataFrame(
        {
            "IID": ["001", "002", "003"],
            "y": [1, -9, 3],
            "z": [1.5, None, -9.0],
            "code": ["a", "NA", None],
            "arm": pd.Categorical(["u", "v", "u"]),
            "ill": [True, False, True],
        }
    )
    table.to_parquet(tmp_path / "x.parquet")
    found = read_phenotypes(tmp_path / "x.parquet")
    assert found.index.tolist() == ["001", "002", "003"]
    np.testing.assert_array_equal(found.y, [1, np.nan, 3], "-9 is missing in numbers too")
    np.testing.assert_array_equal(found.z, [1.5, np.nan, np.nan])
    assert found.code.isna().tolist() == [False, True, True]
    assert found.arm.dtype == "category"
    assert found.ill.dtype == bool
    for indexed in (table.set_index("IID"), table.set_index("IID").rename_axis(None)):
        indexed.to_parquet(tmp_path / "y.parquet")
        assert read_phenotypes(tmp_path / "y.parquet").index.tolist() == ["001", "002", "003"]
    table.assign(IID=[1, 2, 1]).to_parquet(tmp_path / "z.parquet")
    with pytest.raises(InputError, match=r"z\.parquet, row 3: sample '1' comes twice"):
        read_phenotypes(tmp_path / "z.parquet")


def test_missing_codes(tmp_path):
    values = ["", "NA", "NaN", ".", "-9", "-9.00", "-9.1", "999"]
    rows = [[f"i{k}", value] for k, value in enumerate(values)]
    path = written(tmp_path / "x.csv", rows, ("id", "y"), ",")
    np.testing.assert_array_equal(read_phenotypes(path).y, [*[np.nan] * 6, -9.1, 999])
    own = read_phenotypes(path, missing=["", "NA", "NaN", ".", "999"]).y
    np.testing.assert_array_equal(own, [*[np.nan] * 4, -9, -9, -9.1, np.nan])


def test_all_missing_column_is_a_number(tmp_path):
    table = read_phenotypes(written(tmp_path / "x.tsv", [["a", "NA"], ["b", "-9"]], ("id", "y")))
    assert table.y.dtype == np.float64
    assert table.y.isna().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,y\na,1\nb,2\n\nc,1..5\nd,NA\n",
            r"x\.csv, line 5: column 'y' is '1\.\.5', but 2 of its 2 other values are numbers\. "
            r"Correct it, or write NA\.",
        ),
        ("id,y\na,1\nb,2\na,3\n", r"x\.csv, line 4: sample 'a' comes twice\. One row per sample"),
        ("FID,IID,y\nf,a,1\nf,a,2\n", r"x\.csv, line 3: sample 'f_a' comes twice"),
        ("id,y\na,1\n,2\n", r"x\.csv, line 3: no sample id in column 'id'"),
        ("id,y\na,1\nb\n", r"x\.csv, line 3: 1 fields, but the header has 2"),
        ("id,y\na,1,2\nb,1\n", r"x\.csv, line 2: 3 fields, but the header has 2"),
        ("id y\na 1\nb 1 2\n", r"x\.csv, line 3: 3 fields, but the header has 2"),
        ("id,y,y\na,1,2\n", r"x\.csv: columns of the same name: 'y'"),
        ("id,y\n", r"x\.csv: the table has a header but no rows"),
        ("", r"x\.csv: the table has no line"),
        (b"id,y\n\xff,1\n", r"x\.csv: not a table with a header line \('utf-8' codec"),
        (
            "id,y\na,1\nb,2\n".encode("utf-16"),
            r"x\.csv: text in UTF-16.* convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW\.",
        ),
        ("id,y\na,1\nb,2\n".encode("utf-16-le"), r"x\.csv: text in UTF-16"),
        ("id,y\na,1\nb,2\n".encode("utf-16-be"), r"x\.csv: text in UTF-16"),
    ],
)
def test_tables_that_cannot_be(tmp_path, text, message):
    (tmp_path / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_phenotypes(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["1.5", "-999", "2.5", "-999", "1.7"], "is -999 in 2 rows and 1.5 to 2.5 elsewhere"),
        (["150", "999", "180"], "is 999 in 1 row and 150 to 180 elsewhere"),
        (["1.5", "-9", "2.5"], None),  # missing by default
        (["950", "999", "970"], None),  # a value among others
        (["1", "99", "1"], None),  # nothing to compare with
        (["a", "b", "c"], None),
    ],
)
def test_nines_far_from_all_other_values_are_told_of(tmp_path, caplog, values, told):
    path = written(tmp_path / "x.tsv", [[f"i{i}", v] for i, v in enumerate(values)], ("id", "y"))
    with caplog.at_level("WARNING", logger="bayeslmm"):
        read_phenotypes(path)
    assert (told is not None) == bool(caplog.messages)
    if told is not None:
        code = told.split()[1]
        assert f"x.tsv: column 'y' {told}. It is taken as a value" in caplog.messages[0]
        assert f"missing=['', 'NA', '{code}'] (in a shell: --na {code})" in caplog.messages[0]
        assert read_phenotypes(path, missing=["NA", code]).y.isna().sum() == values.count(code)


def test_columns_that_no_formula_uses_may_be_mixed(tmp_path):
    """A wide table is not refused for a column that is not asked for; one that is used is."""
    rows = [[f"i{i}", str(i), "late" if i == 3 else str(i % 2), "-999"] for i in range(12)]
    path = written(tmp_path / "x.tsv", rows, ("id", "y", "note", "old"))
    with pytest.raises(InputError, match="column 'note' is 'late'"):
        read_phenotypes(path)
    table = read_phenotypes(path, needed=may_use("y ~ 1"))
    assert table.note.tolist()[2:5] == ["0", "late", "0"]
    assert table.y.dtype == np.float64
    assert len(bl.LMM("y ~ 1", path, None).y) == 12
    with pytest.raises(InputError, match="column 'note' is 'late'"):
        bl.LMM("y ~ note", path, None)


def test_codes_for_missing_that_are_unknown_are_named(tmp_path):
    path = written(tmp_path / "x.tsv", [["a", "1"], ["b", "none"], ["c", "2"]], ("id", "y"))
    with pytest.raises(InputError, match=r"write NA\. If it means missing, name it \(missing="):
        read_phenotypes(path)


def test_damaged_gzip_and_absent_file(tmp_path):
    path = written(tmp_path / "x.tsv.gz", ROWS * 50)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"x\.tsv\.gz: not a table"):
        read_phenotypes(path)
    with pytest.raises(InputError, match=r"nothing\.tsv: no such file"):
        read_phenotypes(tmp_path / "nothing.tsv")


# -- formulas ------------------------------------------------------------------------------


@pytest.fixture
def data(rng):
    n = 12
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "age": rng.uniform(20, 60, size=n),
            "sex": ["F", "M"] * 6,
            "batch": pd.Categorical(list("abcabcabcabc"), categories=list("zabc")),
            "body mass": rng.normal(size=n),
            "ldl.adj": rng.normal(size=n),
            "treated": [True, False, False] * 4,
            "count": np.arange(n) ** 2 % 7,
        },
        index=index(*[f"s{i:02}" for i in range(n)]),
    )


def columns(data, formula, **options):
    return list(design_from_formula(formula, data, data.index, **options).C.columns)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("y ~ 1", ["Intercept"]),
        ("y ~ 0 + age", ["age"]),
        ("y ~ sex", ["Intercept", "sex[T.M]"]),
        ("y ~ batch", ["Intercept", "batch[T.b]", "batch[T.c]"]),
        ("y ~ age:sex", ["Intercept", "age:sex[F]", "age:sex[M]"]),
        ("y ~ age*sex", ["Intercept", "age", "sex[T.M]", "age:sex[T.M]"]),
        ("y ~ C(count)", ["Intercept", "C(count)[T.1]", "C(count)[T.2]", "C(count)[T.4]"]),
        ("y ~ log(age)", ["Intercept", "log(age)"]),
        ("y ~ poly(age, 2)", ["Intercept", "poly(age, 2)[1]", "poly(age, 2)[2]"]),
        ("y ~ `body mass` + `ldl.adj`", ["Intercept", "body mass", "ldl.adj"]),
        ("y ~ ldl.adj", ["Intercept", "ldl.adj"]),
        ("y ~ treated", ["Intercept", "treated"]),
        ("log(age) ~ count", ["Intercept", "count"]),
        ("treated ~ age", ["Intercept", "age"]),
    ],
)
def test_formulas(data, formula, expected):
    assert sorted(columns(data, formula)) == sorted(expected)


def test_values_of_a_design(data):
    design = design_from_formula("log(age) ~ age*sex + batch", data, data.index[::-1])
    last = data[::-1]
    assert design.ids.equals(last.index)
    assert design.name == "log(age)"
    np.testing.assert_allclose(design.y, np.log(last.age))
    np.testing.assert_allclose(design.C["age:sex[T.M]"], last.age * (last.sex == "M"))
    np.testing.assert_array_equal(design.C["batch[T.b]"], last.batch == "b")


def test_unused_levels_are_dropped(data):
    data.loc[data.batch == "c", "y"] = np.nan
    assert columns(data, "y ~ batch") == ["Intercept", "batch[T.b]"]
    data["sex"] = data.sex.where(data.batch != "c", "unknown")
    assert columns(data, "y ~ sex") == ["Intercept", "sex[T.M]"]


@settings(max_examples=25)
@given(
    order=st.permutations(range(12)),
    kernel=st.permutations(range(15)),
    absent=st.sets(st.integers(0, 11), max_size=3),
)
def test_row_order_changes_nothing(order, kernel, absent):
    """Rows in any order give the same design, in the kernel's order."""
    rng = np.random.default_rng(5)
    table = pd.DataFrame(
        {"y": rng.normal(size=12), "x": rng.normal(size=12), "g": list("abcb") * 3},
        index=index(*[f"s{i}" for i in range(12)]),
    )
    table.loc[[f"s{i}" for i in absent], "y"] = np.nan
    ids = index(*[f"s{i}" for i in kernel])  # s12, s13 and s14 have no row
    first = design_from_formula("y ~ x + g", table, ids)
    again = design_from_formula("y ~ x + g", table.iloc[list(order)], ids)
    pd.testing.assert_frame_equal(first.C, again.C)
    np.testing.assert_array_equal(first.y, again.y)
    assert first.ids.tolist() == [i for i in ids if i in table.index and table.y.notna()[i]]
    np.testing.assert_array_equal(first.y, table.y[first.ids])
    np.testing.assert_array_equal(first.C.x, table.x[first.ids])
    pd.testing.assert_frame_equal(first.account, again.account)
    assert first.account.index.equals(ids)
    y, x = table.y.iloc[list(order)], table[["x"]].iloc[list(order)]
    arrays = design_from_arrays(y, x, ids, labelled_kernel=True)
    np.testing.assert_array_equal(arrays.y, first.y)
    np.testing.assert_array_equal(arrays.C.x, first.C.x)


def test_account_of_every_sample(data):
    data.loc["s01", "y"] = np.nan
    data.loc[["s01", "s02", "s11"], "age"] = np.nan
    kernel = index("k1", *data.index[:9][::-1], "k2")
    account = design_from_formula("y ~ age + sex", data, kernel, missing="drop").account
    assert account.index.tolist() == [*kernel, "s09", "s10", "s11"]
    reasons = account.reason[account.reason != ""].to_dict()
    assert reasons == {
        "k1": "no row in the phenotype table",
        "k2": "no row in the phenotype table",
        "s01": "phenotype missing",
        "s02": "covariate missing",
        "s09": "not in the kernel",
        "s10": "not in the kernel",
        "s11": "not in the kernel",
    }
    assert account.kept.equals(account.reason == "")
    alone = design_from_formula("y ~ sex", data, None).account
    assert alone.reason[~alone.kept].to_dict() == {"s01": "phenotype missing"}


@pytest.mark.parametrize(
    "covariates",
    ["age", "log(age)", "center(age)", "age:sex", "poly(age, 2)", "I(age**2)", "{age + 1}",
     "C(age)", "Q('age')", "1 + bs(age, df=4)", "`age`", "np.log(age):treated"],
)  # fmt: skip
def test_missing_covariates_are_an_error_with_the_count(data, covariates):
    data.loc["s00", "y"] = np.nan
    data.loc[["s00", "s02", "s03"], "age"] = np.nan
    data["C"] = data["df"] = data["log"] = np.nan  # a column that is called or a keyword only
    with pytest.raises(InputError) as caught:
        design_from_formula(f"y ~ {covariates}", data, data.index)
    assert str(caught.value) == (
        "Covariates are missing for 2 samples that have a phenotype ('age' 2; first: 's02', "
        "'s03'). Fill them in, leave the covariate out, or pass missing='drop' (--missing drop)."
    )
    if covariates != "C(age)":  # as many levels as samples
        design = design_from_formula(f"y ~ {covariates}", data, data.index, missing="drop")
        assert len(design.y) == 9


def test_missing_option(data):
    with pytest.raises(InputError, match="missing='skip' is unknown; expected 'error' or 'drop'"):
        design_from_formula("y ~ age", data, None, missing="skip")


def test_match_by_fid_and_iid(data):
    table = data.assign(FID="fam", IID=data.index)
    design = design_from_formula("y ~ age", table, index(*[f"fam_{i}" for i in data.index[5:]]))
    assert design.ids.tolist() == [f"fam_{i}" for i in data.index[5:]]
    np.testing.assert_array_equal(design.y, data.y[5:])
    assert "no row in the phenotype table" not in set(design.account.reason)


def test_integer_ids(data):
    table = data.set_axis(range(100, 112), axis=0)
    design = design_from_formula("y ~ age", table, index(*[str(i) for i in range(111, 99, -1)]))
    np.testing.assert_array_equal(design.y, data.y[::-1])


def edited(**changes):
    return lambda data: data.assign(**changes)


@pytest.mark.parametrize(
    ("formula", "edit", "message"),
    [
        ("y ~ agee", None, r"Formula 'y ~ agee': no column 'agee'\. Columns: 'y', 'age', 'sex'"),
        ("z ~ age", None, r"Formula 'z ~ age': no column 'z'"),
        ("y ~ foo(age)", None, r"Formula 'y ~ foo\(age\)': Unable to evaluate factor `foo\(age\)`"),
        ("y", None, r"'y' cannot be read; expected 'phenotype ~ covariates', as in 'height ~ "),
        ("~ age", None, r"cannot be read; expected 'phenotype ~ covariates'"),
        ("", None, r"cannot be read"),
        ("y ~ (age", None, r"cannot be read; .* Could not find matching context marker\.$"),
        ("y ~ age +", None, r"cannot be read; .* Operator `\+` has"),
        ("y ~ age ~ sex", None, r"cannot be read"),
        ("y ~ age | sex", None, r"cannot be read; expected 'phenotype ~ covariates', as in 'heigh"),
        ("y ~ .", None, r"cannot be read"),
        ("y + age ~ sex", None, r"has 2 phenotypes; expected one\. Fit one model each\."),
        ("C(count) ~ sex", None, r"Phenotype 'C\(count\)' has \d columns; expected one"),
        ("sex ~ age", None, r"Phenotype 'sex' is not numeric \(sample 's00': 'F'\)\. Expected num"),
        ("y ~ age", edited(y=np.nan),
         r"No sample is left for 'y': phenotype missing 12\."),
        ("y ~ age", edited(y=[*range(11), np.inf]), r"Phenotype 'y' of sample 's11' is not finite"),
        ("log(y) ~ age", edited(y=range(12)), r"Phenotype 'log\(y\)' of sample 's00' is not"),
        ("y ~ age", edited(age=[*range(11), -np.inf]),
         r"Covariate 'age' of sample 's11' is not finite"),
        ("y ~ log(age)", edited(age=range(-1, 11)), r"Covariate 'log\(age\)' of sample 's00' is"),
        ("y ~ age", edited(y=0.1), r"Phenotype 'y' has the same value, 0\.1, in all 12 samples"),
        ("y ~ age", edited(age=3.3),
         r"Covariate 'age' is constant among the analysed samples: collinear\. Remove one"),
        ("y ~ age", edited(age=0), r"Covariate 'age' is zero in all analysed samples\. Remove it"),
        ("y ~ sex", edited(sex="F"), r"Covariate 'sex' has one level only among the analysed sam"),
        ("y ~ age + count + double", lambda d: d.assign(double=2 * d.age - d["count"] + 1),
         r"Covariate 'double' is a linear combination of 'Intercept', 'age', 'count': collinear"),
        ("y ~ sex + male", lambda d: d.assign(male=(d.sex == "M") * 1.0),
         r"Covariate 'male' is a linear combination of 'sex\[T\.M\]': collinear"),
        ("y ~ C(y) + age", None, r"'y': 12 samples are too few for 13 covariates \(at least 15\)"),
        ("y ~ age", lambda d: d[:3], r"'y': 3 samples are too few for 2 covariates \(at least 4\)"),
        ("y ~ age", lambda d: d.set_axis(["a", *d.index[1:-1], "a"]),
         r"The phenotype table has samples twice: 'a'"),
        ("y ~ age", lambda d: d.set_axis([np.nan, *d.index[1:]]), r"has 1 rows without id"),
        ("y ~ age", lambda d: d.set_axis([f"m{i}" for i in range(12)]),
         r"No sample of the phenotype table \(12, such as 'm0', 'm1'\) is among the kernel's "
         r"\(12, such as 's00', 's01'\)\. Ids must agree: is another column meant, or"),
    ],
)  # fmt: skip
def test_designs_that_cannot_be(data, formula, edit, message):
    table = edit(data) if edit else data
    kernel = data.index if formula == "y ~ age" and len(table) == 12 else None
    with pytest.raises(InputError, match=message) as caught:
        design_from_formula(formula, table, kernel)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_left_counts_the_reasons(data):
    data.loc["s00", "age"] = np.nan
    data.loc["s01", "y"] = np.nan
    with pytest.raises(InputError) as caught:
        design_from_formula("y ~ age", data, index("s00", "s01", "k"), missing="drop")
    assert str(caught.value).startswith("No sample is left for 'y': not in the kernel 10, ")
    assert "phenotype missing 1" in str(caught.value)


# -- arrays --------------------------------------------------------------------------------


KERNEL = index(*"abcdef")


@pytest.mark.parametrize("labelled_kernel", [True, False])
@pytest.mark.parametrize("labelled_y", [True, False])
def test_labels_on_both_sides_or_on_none(rng, labelled_kernel, labelled_y):
    y = rng.normal(size=6)
    y = pd.Series(y, KERNEL, name="bmi") if labelled_y else y
    kernel = KERNEL if labelled_kernel else index(*"012345")
    if labelled_kernel == labelled_y:
        design = design_from_arrays(y, None, kernel, labelled_kernel=labelled_kernel)
        assert design.ids.equals(kernel)
        np.testing.assert_array_equal(design.y, y)
        assert design.name == ("bmi" if labelled_y else "y")
        return
    has, lacks = ("y", "the kernel") if labelled_y else ("the kernel", "y")
    with pytest.raises(InputError, match=f"^{has} names its samples, but {lacks} does not, so th"):
        design_from_arrays(y, None, kernel, labelled_kernel=labelled_kernel)


@pytest.mark.parametrize("labelled_kernel", [True, False])
@pytest.mark.parametrize("labelled_y", [True, False])
def test_labels_through_the_model(rng, labelled_kernel, labelled_y):
    """The same by bl.LMM, for arrays and for formulas; pandas' default index is no label."""
    ids = [f"s{i}" for i in range(6)]
    K = np.cov(rng.normal(size=(6, 30)))
    K = pd.DataFrame(K, ids, ids) if labelled_kernel else pd.DataFrame(K)
    y = pd.Series(rng.normal(size=6), ids if labelled_y else None, name="y")
    if labelled_kernel == labelled_y:
        np.testing.assert_array_equal(bl.LMM(y, kernel=K).y, y)
        np.testing.assert_array_equal(bl.LMM("y ~ 1", y.to_frame(), K).y, y)
        return
    for model in ((y, None), ("y ~ 1", y.to_frame())):
        with pytest.raises(InputError, match=r"order cannot be checked|kernel names its samples"):
            bl.LMM(*model, K)


def test_arrays_align_by_id(rng):
    y = pd.Series(rng.normal(size=7), list("gfedcba"), name="y")
    x = pd.DataFrame({"y": rng.normal(size=7), 3: rng.normal(size=7)}, y.index)
    y["c"] = np.nan
    design = design_from_arrays(y, x, KERNEL, labelled_kernel=True)
    assert design.ids.tolist() == list("abdef")
    np.testing.assert_array_equal(design.y, y[list("abdef")])
    assert list(design.C.columns) == ["Intercept", "y", "x4"]
    np.testing.assert_array_equal(design.C.y, x.y[list("abdef")], "a covariate named like y")
    assert design.account.reason.to_dict()["c"] == "phenotype missing"
    assert design.account.reason.to_dict()["g"] == "not in the kernel"


def test_missing_covariates_of_arrays(rng):
    y, x = rng.normal(size=6), rng.normal(size=(6, 2))
    x[2, 1] = np.nan
    with pytest.raises(InputError, match=r"missing for 1 samples .*\('x2' 1; first: 'c'\)"):
        design_from_arrays(y, x, KERNEL, labelled_kernel=False)
    design = design_from_arrays(y, x, KERNEL, labelled_kernel=False, missing="drop")
    assert design.ids.tolist() == list("abdef")


@pytest.mark.parametrize(
    ("y", "covariates", "message"),
    [
        (np.zeros((6, 1)), None, r"y must have one dimension, but has shape \(6, 1\)"),
        (list("abcdef"), None, r"Phenotype 'y' is not numeric \(could not convert .* 'a'\)"),
        (range(5), None, r"y has 5 values, but the kernel has 6 samples"),
        (range(6), np.zeros((5, 1)), r"Covariates have 5 rows, but y has 6 values"),
        (range(6), list("abcdef"), r"Covariate 'x1' is not numeric"),
        (range(6), np.ones(6), r"Covariate 'x1' is constant among the analysed samples"),
        (range(6), pd.DataFrame([[1, 2]] * 6, columns=["a", "a"]), r"of the same name: 'a' \("),
        (range(6), pd.DataFrame({"Intercept": [1] * 6}), r"of the same name: 'Intercept' \(the i"),
        (
            range(6),
            pd.DataFrame({"a": range(6)}, KERNEL),
            r"Covariates name their samples, but y d",
        ),
        (range(6), np.eye(6)[:, :5], r"'y': 6 samples are too few for 6 covariates"),
        ([1, np.nan, np.inf, 4, 5, 6], None, r"Phenotype 'y' of sample 'c' is not finite"),
    ],
)
def test_arrays_that_cannot_be(y, covariates, message):
    with pytest.raises(InputError, match=message):
        design_from_arrays(y, covariates, KERNEL, labelled_kernel=False)


def test_covariates_of_other_samples(rng):
    y = pd.Series(rng.normal(size=6), KERNEL)
    for ids in (KERNEL[::-1], index(*"abcdeg")):
        with pytest.raises(InputError, match="name different samples, or in another order"):
            design_from_arrays(y, pd.DataFrame({"a": y.values}, ids), KERNEL, labelled_kernel=True)
    with pytest.raises(InputError, match="samples twice: 'a'"):
        design_from_arrays(y.set_axis(list("aacdef")), None, KERNEL, labelled_kernel=True)


def test_covariates_of_new_samples(data):
    """Levels, transforms and contrasts are those of the analysed samples."""
    design = design_from_formula("y ~ batch + center(age)", data, None)
    new = data.iloc[[4, 1]].assign(age=data.age.mean(), batch=["b", "c"])
    expected = [[1, 1, 0, 0], [1, 0, 1, 0]]
    np.testing.assert_allclose(design.covariates_of(new), expected, atol=1e-12)
    with pytest.raises(InputError, match="new samples lack the column 'age'"):
        design.covariates_of(new.drop(columns="age"))
    new.loc["s01", "age"] = np.nan
    with pytest.raises(InputError, match="missing for 1 new samples: 's01'"):
        design.covariates_of(new)


def test_new_samples_that_the_formula_does_not_fit(data):
    """An unknown level is no base level, as formulaic would have it with a warning."""
    design = design_from_formula("y ~ sex + log(age)", data, None)
    with pytest.raises(InputError, match=r"Covariates of new samples: .*levels .*'unknown'"):
        design.covariates_of(data.iloc[:2].assign(sex=["F", "unknown"]))
    with pytest.raises(InputError, match=r"Covariate 'log\(age\)' of sample 's01' is not finite"):
        design.covariates_of(data.iloc[:2].assign(age=[1, 0]))


@pytest.mark.parametrize(
    ("content", "formula", "said"),
    [
        ("i1,1.5,2\ni2,0.5,1\n", "y ~ sex", r"looks like data \('1\.5', '2'\): is the header miss"),
        (
            "f,i1,2\nf,i2,3\nf,i3,4\n",
            "y ~ 1",
            r"column 'f'.*looks like data \('2'\): is the header",
        ),
        ("id,Hight\ni1,1\ni2,2\n", "height ~ 1", r"no column 'height'.*Did you mean 'Hight'\?"),
        ("id,y\nI1,1\nI2,2\n", "y ~ 1", "2 agree if upper and lower case are not told apart"),
        ("id,y\nf_i1,1\nf_i2,2\n", "y ~ 1", "2 agree if only what follows the last '_' counts"),
        ("id,y\nmouse-1,1\nmouse-2,2\n", "y ~ 1", "2 agree if only their digits count"),
        ("id,y\na,1\nb,2\n", "y ~ 1", "are these files of different samples"),
        ("id;y\ni1;1,5\ni2;0,5\n", "y ~ 1", r"Write numbers with a point, as 1\.5\."),
    ],
)
def test_messages_say_what_may_be_meant(content, formula, said, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(content)
    kernel = pd.DataFrame(np.eye(3), ["i1", "i2", "i3"], ["i1", "i2", "i3"])
    with pytest.raises(InputError, match=f"(?s){said}"):
        bl.LMM(formula, bl.read_phenotypes(path), kernel)
