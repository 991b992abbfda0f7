use super::{parse, print};

const LAYER: &str = r#"func @layer(%0 "x": f32[4,8], %1 "weight": f32[8]) {
  %2 = rms_norm %0, %1 {eps = 1e-5, plus_one = false} : f32[4,8]
  %3 = silu %2 : f32[4,8]
  return %3
}

func @main(
    %0 "x": f32[4,8],
    %1 "a, b": f32[8],
    %2 "tokens": token[4],
    %3 "table": bf16[16,8]) {
  %4 = call @layer(%0, %1) : f32[4,8]
  %5 = call @layer(%4, %1) : f32[4,8]
  %6 = embedding %3, %2 {scale = 1e0, padding = none, dtype = bf16} : bf16[4,8]
  %7 = matmul_sum %5, %6, %4, %6 {ta = [false, false], tb = [true, true], dtype = f32} : f32[4,4]
  return %7, %5
}
"#;

#[test]
fn text_round_trips() {
    let module = parse(LAYER).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(print(&module), LAYER);
    crate::verify::verify(&module).unwrap();
}

/// Every mistake is refused with its line and a reason.
#[test]
fn mistakes_are_named() {
    let cases = [
        ("silu %2", "sliu %2", 3, "no op is called `sliu`; the nearest is `silu`"),
        ("{eps = 1e-5, plus_one = false}", "{eps = 1e-5}", 2, "`rms_norm` needs the attribute `plus_one`"),
        ("{eps = 1e-5,", "{epsilon = 1, eps = 1e-5,", 2, "`rms_norm` has no attribute `epsilon`"),
        ("silu %2 : f32[4,8]", "silu %2 : f32[4,4]", 3, "the type is written f32[4,4], inferred f32[4,8]"),
        ("silu %2 : f32", "silu %9 : f32", 3, "%9 is used before it is made"),
        ("%3 = silu", "%7 = silu", 3, "the results are called %7, wanted %3"),
        ("call @layer(%0, %1)", "call @later(%0, %1)", 12, "no earlier function is called @later"),
        ("call @layer(%0, %1)", "call @layer(%1, %0)", 12, "operand 0 (`x`) of @layer is f32[8], wanted f32[4,8]"),
        ("embedding %3, %2", "embedding %3, %0", 14, "`tokens` is f32[4,8], wanted token elements"),
        ("return %7, %5\n}", "return %7, %5\n", 17, "the text ends inside a function"),
    ];
    for (from, to, line, message) in cases {
        let error = parse(&LAYER.replacen(from, to, 1)).expect_err(to);
        assert_eq!(error.line, line, "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}

#[test]
fn garbage_is_refused_without_a_panic() {
    for text in ["", "}", "func", "func @", "func @f() {\n}", "func @f(%0 \"x\": f32[99999999999999999999]) {", "é\"//"]
    {
        assert!(parse(text).is_err(), "{text}");
    }
    for cut in (0..LAYER.len() - 2).filter(|i| LAYER.is_char_boundary(*i)) {
        assert!(parse(&LAYER[..cut]).is_err() || LAYER[cut..].trim_start().starts_with("func"), "cut at {cut}");
    }
}
