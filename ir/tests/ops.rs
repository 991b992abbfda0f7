//! `docs/ops.md` is what the op table says, and the table's types of results are those that `infer` gives.
//!
//! `AMC_BLESS=1` (`./x bless`) writes the page.
use amc_ir::op::Row;
use amc_ir::{Function, Op, text};
use std::path::Path;

const HEAD: &str = "\
# Ops

Every op of the IR, made from `ir/src/ops` by `./x bless`: do not edit. `docs/add-an-op.md` says how to add one.

A result is written as the operand whose type it has, or as element type and sizes: T tokens, n the size of the last axis, `…` the
other axes of the operand. `more` stands for any number of operands. Of the attributes, `DType` is the name of an element type, and
an `Option` is `none` or a number.
";

/// Every op once, with attributes and operand types that it takes.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("add", &["f32[2,3]", "f32[2,3]"]),
    ("sub", &["f32[2,3]", "f32[2,3]"]),
    ("mul", &["f32[2,3]", "f32[2,3]"]),
    ("div", &["f32[2,3]", "f32[2,3]"]),
    ("max", &["bf16[2,3]", "bf16[2,3]"]),
    ("neg", &["f32[2,3]"]),
    ("exp", &["f32[2,3]"]),
    ("log", &["f32[2,3]"]),
    ("sqrt", &["f32[2,3]"]),
    ("rsqrt", &["f32[2,3]"]),
    ("tanh", &["f32[2,3]"]),
    ("erf", &["f32[2,3]"]),
    ("sigmoid", &["f32[2,3]"]),
    ("silu", &["f32[2,3]"]),
    ("gelu", &["f32[2,3]"]),
    ("gelu_tanh", &["f32[2,3]"]),
    ("relu", &["f32[2,3]"]),
    ("step", &["f32[2,3]"]),
    ("scale {value = 2e0}", &["bf16[2,3]"]),
    ("offset {value = 2e0}", &["bf16[2,3]"]),
    ("cast {dtype = bf16}", &["f32[2,3]"]),
    ("constant {value = 1e0, dtype = bf16, shape = [2, 3]}", &[]),
    ("broadcast {shape = [4, 3]}", &["bf16[3]"]),
    ("sum_to {shape = [4, 1], dtype = f32}", &["bf16[4,3]"]),
    ("reshape {shape = [2, 6]}", &["bf16[4,3]"]),
    ("rows {start = 1, count = 2}", &["bf16[4,3]"]),
    ("matmul {ta = true, tb = true, dtype = bf16}", &["f32[3,2]", "f32[4,3]"]),
    ("matmul_sum {ta = [false], tb = [true], dtype = bf16}", &["f32[2,3]", "f32[4,3]"]),
    ("grouped_matmul {tb = true, dtype = bf16}", &["bf16[6,3]", "index[3]", "f32[4,3]", "f32[4,3]"]),
    ("grouped_matmul_grad", &["bf16[6,3]", "f32[6,4]", "index[2]"]),
    ("route {k = 2, normalize = true}", &["f32[3,5]"]),
    ("route_grad {normalize = true}", &["f32[3,5]", "index[3,2]", "f32[3,2]"]),
    ("group_rows {groups = 5}", &["index[3,2]"]),
    ("gather_rows {k = 2}", &["bf16[3,4]", "index[6]", "index[6]"]),
    ("sum_rows {k = 2}", &["bf16[6,4]", "index[6]", "index[6]"]),
    ("embedding {scale = 1e0, padding = none, dtype = bf16}", &["f32[5,3]", "token[4]"]),
    ("embedding_grad {vocab = 5, scale = 1e0, padding = none}", &["token[4]", "bf16[4,3]"]),
    ("rms_norm {eps = 1e-5, plus_one = false}", &["bf16[2,4]", "f32[4]"]),
    ("rms_norm_grad {eps = 1e-5, plus_one = false}", &["bf16[2,4]", "f32[4]", "bf16[2,4]"]),
    ("rms_norm_grad_add {eps = 1e-5, plus_one = false}", &["bf16[2,4]", "f32[4]", "bf16[2,4]", "bf16[2,4]"]),
    ("rms_norm_grad_weight {eps = 1e-5}", &["bf16[2,4]", "bf16[2,4]"]),
    ("layer_norm {eps = 1e-5, plus_one = false}", &["bf16[2,4]", "f32[4]", "bf16[4]"]),
    ("layer_norm_grad {eps = 1e-5, plus_one = false}", &["bf16[2,4]", "f32[4]", "bf16[2,4]"]),
    ("layer_norm_grad_add {eps = 1e-5, plus_one = false}", &["bf16[2,4]", "f32[4]", "bf16[2,4]", "bf16[2,4]"]),
    ("layer_norm_grad_weight {eps = 1e-5}", &["bf16[2,4]", "bf16[2,4]"]),
    (
        "rope {heads = 2, first = 1, neighbours = false, inverse = false}",
        &["bf16[3,12]", "position[3]", "f32[8,2]", "f32[8,2]"],
    ),
    ("split_heads {heads = 2, sizes = [3, 1], shared = false}", &["bf16[3,8]"]),
    ("join_heads {heads = 2, shared = true}", &["bf16[3,8]", "bf16[3,4]"]),
    (
        "attention {seq = 4, heads = 4, kv_heads = 2, scale = 5e-1, window = none, softcap = none, alibi = none}",
        &["bf16[8,12]", "bf16[8,6]", "bf16[8,10]", "segment[8]"],
    ),
    (
        "attention_grad {seq = 4, heads = 4, kv_heads = 2, scale = 5e-1, window = 3, softcap = 5e1, alibi = 1e0}",
        &["bf16[8,12]", "bf16[8,6]", "bf16[8,10]", "bf16[8,20]", "f32[8,4]", "bf16[8,20]", "segment[8]"],
    ),
    ("cache_append", &["bf16[8,6]", "bf16[2,6]", "index[1]"]),
    (
        "attention_cached {heads = 4, kv_heads = 2, scale = 5e-1, window = none, softcap = 3e1, alibi = none}",
        &["bf16[2,12]", "bf16[8,6]", "bf16[8,10]", "index[1]"],
    ),
    (
        "linear_cross_entropy {logit_scale = 1e0, softcap = none}",
        &["bf16[4,3]", "bf16[5,3]", "label[4]", "loss_scale[1]"],
    ),
    (
        "linear_cross_entropy_grad {logit_scale = 1e0, softcap = 3e1, weight = true, bias = true}",
        &["bf16[4,3]", "bf16[5,3]", "label[4]", "loss_scale[1]", "bf16[5]"],
    ),
    ("dropout {p = 5e-1, site = 3}", &["bf16[4,5]", "seed[2]"]),
    ("derive_seed {index = 1}", &["seed[2]"]),
    ("accumulate", &["f32[4]", "bf16[4]"]),
    ("clip_coefficient", &["f32[4]", "f32[1]"]),
    (
        "adam {beta1 = 9e-1, beta2 = 9e-1, eps = 1e-8, decoupled = true}",
        &["bf16[4]", "f32[4]", "f32[4]", "f32[4]", "f32[1]", "f32[1]", "f32[1]", "f32[1]", "f32[1]"],
    ),
];

#[test]
fn the_page_of_ops_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ops.md");
    let wanted = page();
    if std::fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
        return;
    }
    assert!(std::env::var_os("AMC_BLESS").is_some(), "docs/ops.md is stale: `./x bless` writes it");
    std::fs::write(&path, wanted).unwrap();
}

fn page() -> String {
    let mut page = String::from(HEAD);
    let mut file = "";
    for row in Op::TABLE {
        if row.file != file {
            file = row.file;
            page += &format!(
                "\n## {file}.rs\n\n| op | operands | attributes | results | meaning |\n|---|---|---|---|---|\n"
            );
        }
        page += &line(row);
    }
    page
}

fn line(row: &Row) -> String {
    let attributes: Vec<String> = row.attributes.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
    let code = |words: &[String]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let doc: Vec<&str> = row.doc.lines().map(str::trim).collect();
    let results: Vec<String> =
        row.results.iter().map(|rule| split(rule)).map(|(ty, rest)| format!("`{ty}`{rest}")).collect();
    let operands: Vec<String> = row.operands.iter().map(|name| name.to_string()).collect();
    let cells = [format!("`{}`", row.name), code(&operands), code(&attributes), results.join(", "), doc.join(" ")];
    assert!(!cells.iter().any(|cell| cell.contains('|')), "{}: a table has no room for |", row.name);
    format!("| {} |\n", cells.join(" | "))
}

/// A rule's type, and when the result is there if not always.
fn split(rule: &str) -> (&str, &str) {
    rule.split_at(rule.find(" with ").unwrap_or(rule.len()))
}

#[test]
fn results_are_what_the_table_says() {
    let names: Vec<&str> = EXAMPLES.iter().map(|(op, _)| op.split(' ').next().unwrap()).collect();
    assert_eq!(names, Op::TABLE.iter().map(|row| row.name).collect::<Vec<_>>(), "every op has an example, in order");
    for ((op, operands), row) in EXAMPLES.iter().zip(Op::TABLE) {
        let function = example(op, operands);
        let inst = &function.insts[0];
        assert_eq!(inst.results.len(), row.results.len(), "{op}: number of results");
        for (rule, result) in row.results.iter().zip(&inst.results) {
            let found = function.ty(*result).to_string();
            let wanted = apply(split(rule).0, row, operands, op);
            assert!(fits(&found, &wanted), "{op}: a result is {found}, the table says {rule}, which is {wanted}");
        }
    }
}

fn example(op: &str, operands: &[&str]) -> Function {
    let params: Vec<String> = operands.iter().enumerate().map(|(i, ty)| format!("%{i} \"p{i}\": {ty}")).collect();
    let args: Vec<String> = (0..operands.len()).map(|i| format!("%{i}")).collect();
    let (name, attributes) = op.split_once(' ').unwrap_or((op, ""));
    let n = operands.len();
    // The reader says what it inferred where the type that is written is another.
    let source = |results: &str, types: &str| {
        let (params, args) = (params.join(", "), args.join(", "));
        format!("func @f({params}) {{\n  {results} = {name} {args} {attributes} : {types}\n  return %{n}\n}}\n")
    };
    let count = Op::TABLE.iter().find(|row| row.name == name).map_or(1, |row| row.results.len());
    let results: Vec<String> = (n..n + count).map(|i| format!("%{i}")).collect();
    let error = text::parse(&source(&results.join(", "), "?[1]")).expect_err("the type is made up").message;
    let types = error.split_once("inferred ").unwrap_or_else(|| panic!("{op}: {error}")).1;
    let mut module = text::parse(&source(&results.join(", "), types)).unwrap_or_else(|error| panic!("{op}: {error}"));
    module.functions.remove(0)
}

/// A rule with the example's operands and attributes put in.
fn apply(rule: &str, row: &Row, operands: &[&str], op: &str) -> String {
    let operand = |name: &str| row.operands.iter().position(|known| *known == name).map(|i| operands[i]);
    if let Some(ty) = operand(rule) {
        return ty.into();
    }
    let (dtype, sizes) = rule.strip_suffix(']').and_then(|rule| rule.split_once('[')).expect("a type");
    let attribute = |name: &str| {
        let (_, value) = op.split_once(&format!("{name} = "))?;
        let end = if value.starts_with('[') { value.find(']')? + 1 } else { value.find([',', '}'])? };
        Some(value[..end].trim_matches(['[', ']']).replace(' ', ""))
    };
    let of = |word: &str, part: &str, i: usize| {
        let name = word.strip_suffix(part)?;
        Some(operand(name)?.trim_end_matches(']').split('[').nth(i)?.to_string())
    };
    let dtype = attribute(dtype).or(of(dtype, ".dtype", 0)).unwrap_or(dtype.into());
    let sizes = sizes.split(", ").map(|size| attribute(size).or(of(size, ".shape", 1)).unwrap_or(size.into()));
    format!("{dtype}[{}]", sizes.collect::<Vec<_>>().join(","))
}

/// Whether a type is the wanted one, in which a size may be a letter.
fn fits(found: &str, wanted: &str) -> bool {
    let parts = |ty: &str| ty.trim_end_matches(']').split(['[', ',']).map(String::from).collect::<Vec<_>>();
    let (found, wanted) = (parts(found), parts(wanted));
    let number = |word: &String| word.parse::<usize>().is_ok();
    found.len() == wanted.len() && found.iter().zip(&wanted).all(|(f, w)| f == w || (number(f) && !number(w)))
}
