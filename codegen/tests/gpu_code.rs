//! What becomes of the kernels of GPUs: NVIDIA's assembler takes all of them and its figures are golden, and so is the PTX
//! of a few small ones.
//!
//! The assembler is optional. Without it the test says on its standard output what it has not checked.
//! `AMC_BLESS=1` (`./x bless`) writes `golden/`.
#[path = "support/golden.rs"]
mod golden;
#[path = "support/gpu_kernels.rs"]
mod gpu_kernels;
#[path = "support/parts.rs"]
mod parts;
#[path = "support/ptxas.rs"]
mod ptxas;

use amc_codegen::ptx;
use amc_kernels::{Code, Gpu, Kernel};
use golden::{compare, llvm};
use gpu_kernels::Named;
use ptxas::{Ptxas, Usage};
use std::fmt::Write;

/// The file that pins the assembler's version.
const REQUIREMENTS: &str = include_str!("../../tools/requirements-ptxas.txt");

/// The version that the golden figures were made by.
fn pinned() -> &'static str {
    let line = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("nvidia-cuda-nvcc=="));
    line.expect("tools/requirements-ptxas.txt has a line `nvidia-cuda-nvcc==VERSION`")
}

#[test]
fn kernels_assemble() {
    let lists = Gpu::ALL.map(|gpu| gpu_kernels::all(&gpu));
    let count: usize = lists.iter().map(Vec::len).sum();
    let Some(ptxas) = Ptxas::find() else {
        println!(
            "ptxas: not there, so {count} kernels of sm_80 and sm_90a were NOT assembled, and neither registers nor spills \
             were compared (`./x test` installs the package nvidia-cuda-nvcc where a package index answers)"
        );
        return;
    };
    let mut page = format!(
        "# Kernels of GPUs, assembled\n\nBy ptxas {}, from the PTX of {}; written by `./x bless`. Spills are bytes \
         stored and loaded; shared memory is in bytes.\n",
        ptxas.version,
        llvm()
    );
    let jobs: Vec<(Gpu, &Vec<Named>)> = Gpu::ALL.into_iter().zip(&lists).collect();
    let reports = std::thread::scope(|scope| {
        let running: Vec<_> = jobs.iter().map(|(gpu, list)| scope.spawn(|| assembled(&ptxas, *gpu, list))).collect();
        running.into_iter().map(|job| job.join().expect("ptxas takes the kernels")).collect::<Vec<_>>()
    });
    for ((gpu, list), usages) in jobs.into_iter().zip(&reports) {
        describe(&mut page, gpu, list, usages);
    }
    let assembled: usize = reports.iter().map(Vec::len).sum();
    println!("ptxas {}: {assembled} of {count} kernels assembled, no serialised wgmma", ptxas.version);
    assert_eq!(assembled, count, "ptxas reports as many kernels as it was given");
    if ptxas.version == pinned() {
        compare("ptxas.md", &page);
    } else {
        println!("ptxas: version {}, not {}: registers and spills were NOT compared", ptxas.version, pinned());
    }
}

fn assembled(ptxas: &Ptxas, gpu: Gpu, list: &[Named]) -> Vec<(String, Usage)> {
    let kernels: Vec<Kernel> = list.iter().map(|(_, kernel)| kernel.clone()).collect();
    let text = ptx(&kernels, gpu).unwrap_or_else(|error| panic!("{error}"));
    ptxas.assemble(&text, gpu.name())
}

/// The code of a few small kernels, for whoever reviews a change of the templates.
#[test]
fn code_of_small_kernels() {
    let [ampere, hopper] = Gpu::ALL;
    for (gpu, list) in [(ampere, gpu_kernels::small(&ampere)), (hopper, gpu_kernels::small_hopper(&hopper))] {
        for (name, kernel) in list {
            let symbol = kernel.symbol.clone();
            let text = ptx(&[kernel], gpu).unwrap_or_else(|error| panic!("{error}"));
            compare(&format!("ptx/{name}.ptx"), &text.replace(&symbol, &name));
        }
    }
}

/// Registers of a multiprocessor.
const REGISTERS: usize = 64 << 10;
/// Threads that pass registers on together.
const WARPGROUP: usize = 128;

/// Checks that a multiprocessor has the registers of a block; and, where its last warpgroup gives some up for the others, that these
/// then have what they wait for, or they would wait for ever.
fn check_registers(name: &str, text: &str, threads: usize, registers: usize) {
    // Warps get them in multiples of 256.
    let at_first = threads * registers.next_multiple_of(8);
    assert!(at_first <= REGISTERS, "{name}: {threads} threads with {registers} registers each, of {REGISTERS}");
    let set = |way: &str| -> Option<usize> {
        let (_, rest) = text.split_once(&format!("nvvm.setmaxregister {way} "))?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let (more, fewer) = (set("increase"), set("decrease"));
    assert_eq!(more.is_some(), fewer.is_some(), "{name}: registers are given up for those who take them");
    if let (Some(more), Some(fewer)) = (more, fewer) {
        let wanted = (threads - WARPGROUP) * more + WARPGROUP * fewer;
        assert!(wanted <= at_first, "{name}: {wanted} registers of a block that ptxas has begin with {at_first}");
    }
}

/// Adds a table of the kernels for one GPU.
fn describe(page: &mut String, gpu: Gpu, list: &[Named], usages: &[(String, Usage)]) {
    let head = "| kernel | threads | registers | spills | shared memory |\n|---|---|---|---|---|";
    writeln!(page, "\n## {}\n\n{head}", gpu.name()).expect("writing to a string");
    for (name, kernel) in list {
        let (_, usage) = (usages.iter().find(|(symbol, _)| *symbol == kernel.symbol))
            .unwrap_or_else(|| panic!("ptxas says nothing of {name}, {}", kernel.symbol));
        let Code::Gpu(_, geometry) = &kernel.code else { panic!("{name} is no kernel of a GPU's") };
        let spills = match (usage.spill_stores, usage.spill_loads) {
            (0, 0) => "none".into(),
            (stored, loaded) => format!("**{stored}, {loaded}**"),
        };
        let shared = usage.shared + geometry.shared_bytes as usize;
        assert!(shared <= gpu.shared_bytes(), "{name} takes {shared} bytes of shared memory");
        check_registers(name, kernel.text().unwrap_or_default(), geometry.threads as usize, usage.registers);
        writeln!(page, "| {name} | {} | {} | {spills} | {shared} |", geometry.threads, usage.registers)
            .expect("writing to a string");
    }
}
