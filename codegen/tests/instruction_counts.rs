//! Golden figures of the generated code, which no timing disturbs: how many instructions the main kernels execute, and
//! what the innermost loops are made of where the processor has AVX-512, which few machines of developers have.
//!
//! `AMC_BLESS=1` (`./x bless`) writes `golden/`.
mod support;

use amc_codegen::{assembly, named_target};
use amc_kernels::Target;
use std::fmt::Write;
use std::path::Path;
use support::golden::{compare, llvm};
use support::problems::{Amount, Problem};
use support::{callgrind, loops, problems};

const COUNTS: &str = "instructions_of_the_main_kernels";

/// The target of the counts: code for it runs everywhere, and depends on no machine.
const COUNTED: &str = "cpu:x86-64-v3";

/// The targets whose innermost loops are looked at.
const AVX512: [&str; 2] = ["cpu:znver5", "cpu:sapphirerapids"];

fn target(name: &str) -> Target {
    named_target(name).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn instructions_of_the_main_kernels() {
    let target = target(COUNTED);
    let mut problems = problems::all(&target);
    if let Some(object) = callgrind::object_to_count() {
        return callgrind::call_all(&object, &mut problems);
    }
    let counts = callgrind::instructions(&problems, &target, COUNTS);
    let mut page = format!(
        "# Instructions of the main kernels\n\nFor {COUNTED}, {}, as callgrind counts them; written by `./x bless`.\n\n\
         | kernel | of | instructions | each |\n|---|---|---|---|\n",
        llvm()
    );
    for (problem, count) in problems.iter().zip(counts) {
        let (amount, each) = (problem.amount.count(), count as f64 / problem.amount.count() as f64);
        let unit = if matches!(problem.amount, Amount::MultiplyAdds(_)) { "multiply-adds" } else { "elements" };
        writeln!(page, "| {} | {amount} {unit} | {count} | {each:.4} |", problem.name).expect("writing to a string");
    }
    compare("instructions.md", &page);
}

#[test]
fn inner_loops_for_avx512() {
    let mut page = format!(
        "# Innermost loops for AVX-512\n\nThose that multiply and add, by {}; written by `./x bless`. A multiply-add that \
         takes an operand from memory counts there too.\n",
        llvm()
    );
    for name in AVX512 {
        let target = target(name);
        write!(
            page,
            "\n## {name}\n\n| kernel | loop | fma | vdpbf16ps | loads | broadcasts | stores | stack | other |\n\
             |---|---|---|---|---|---|---|---|---|\n"
        )
        .expect("writing to a string");
        let products = problems::all(&target).into_iter().filter(|p| matches!(p.amount, Amount::MultiplyAdds(_)));
        let marked: String = products.map(|problem| describe(&problem, &target, &mut page)).collect();
        let file = format!("{}.s", name.replace(':', "_"));
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(file), marked).expect("writing the loops");
    }
    compare("avx512_loops.md", &page);
}

/// Adds the rows of a kernel's loops, none of which may spill; returns the loops as llvm-mca takes them.
fn describe(problem: &Problem, target: &Target, page: &mut String) -> String {
    let text = assembly(&problem.kernel, target).unwrap_or_else(|error| panic!("{error}"));
    let mut marked = String::new();
    for inner in loops::innermost(&text) {
        let c = inner.counts();
        if c.fma + c.dot == 0 {
            continue;
        }
        assert_eq!(
            c.stack,
            0,
            "{}, {}: registers are spilled in an inner loop:\n{}",
            problem.name,
            target.cpu,
            inner.text.join("\n")
        );
        let function = inner.function.replace(&problem.kernel.symbol, "kernel");
        let numbers = [c.fma, c.dot, c.loads, c.broadcasts, c.stores, c.stack, c.other].map(|n| n.to_string());
        writeln!(page, "| {} | {function} {} | {} |", problem.name, inner.number, numbers.join(" | "))
            .expect("writing to a string");
        marked += &inner.marked(&problem.name);
    }
    marked
}
