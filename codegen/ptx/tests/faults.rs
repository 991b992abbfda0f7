//! Every file of `tests/ptx` is a kernel that runs cleanly and gives the results that its header states. A line of it
//! may say what happens without it (`// without: TEXT`) or as something else (``// as `CODE`: TEXT``): the test makes
//! that change and wants a fault whose message holds TEXT (or one of several, joined by OR), in both modes.
//!
//! The header, a comment each: `launch: grid X, threads X[, cluster X][, shared BYTES]`, and the kernel's arguments in
//! order: `u32 N`, `f32 N`, `buffer NAME TYPE VALUES`, `room NAME BYTES` (which nobody wrote), and
//! `result NAME TYPE VALUES` to compare with afterwards. VALUES are numbers, `A..B`, `N x VALUE`, or `N mod M` for the
//! numbers below N modulo M. `map NAME SIZES box SIZES` is a bf16 tensor map of a buffer that is no argument itself
//! (`hidden NAME TYPE VALUES`, `hole NAME BYTES`), with 128-byte swizzle.
use amc_ptx::{Argument, Device, Error, Kernel, Launch, Mode, Swizzle, TensorElement, TensorMap, load};
use std::{collections::BTreeMap, fs, path::Path};

#[test]
fn kernels_run_cleanly_and_their_faults_are_found() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ptx");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let (mut faults, mut wrong) = (0, Vec::new());
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        for mode in [Mode::Late, Mode::Early] {
            if let Err(found) = check_clean(&text, mode) {
                wrong.push(format!("{name} ({mode:?}): {found}"));
            }
            for (line, changed, wanted) in changes(&text) {
                faults += 1;
                if let Err(found) = check_fault(&changed, &wanted, mode) {
                    wrong.push(format!("{name}:{line} ({mode:?}): {found}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!files.is_empty() && faults > 0);
    println!("{} kernels, {faults} faults", files.len());
}

fn check_clean(text: &str, mode: Mode) -> Result<(), String> {
    let setup = Setup::parse(text);
    let results = setup.run(text, mode).map_err(|error| error.to_string())?;
    for (name, wanted) in &setup.results {
        if results[name] != *wanted {
            return Err(format!("`{name}`: found {:?}, wanted {wanted:?}", results[name]));
        }
    }
    Ok(())
}

fn check_fault(text: &str, wanted: &str, mode: Mode) -> Result<(), String> {
    match Setup::parse(text).run(text, mode) {
        Ok(_) => Err(format!("ran cleanly, wanted a fault with {wanted:?}")),
        Err(error) if wanted.split(" OR ").any(|wanted| error.to_string().contains(wanted)) => Ok(()),
        Err(error) => Err(format!("found {error}\nwanted {wanted:?}")),
    }
}

/// The text with one of its stated changes, the line of the change, and the fault that it leads to.
fn changes(text: &str) -> Vec<(usize, String, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut changes = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        for note in line.split("// ").skip(1) {
            let (code, wanted) = if let Some(wanted) = note.strip_prefix("without: ") {
                ("", wanted)
            } else if let Some(rest) = note.strip_prefix("as `") {
                rest.split_once("`: ").expect("a change ends with its fault")
            } else {
                continue;
            };
            let mut changed = lines.clone();
            changed[i] = code;
            changes.push((i + 1, changed.join("\n"), wanted.trim().to_owned()));
        }
    }
    changes
}

#[derive(Default)]
struct Setup {
    launch: Vec<String>,
    arguments: Vec<Vec<String>>,
    results: BTreeMap<String, Vec<u8>>,
}

impl Setup {
    fn parse(text: &str) -> Setup {
        let mut setup = Setup::default();
        for line in text.lines().map_while(|line| line.strip_prefix("// ")) {
            let words: Vec<String> = line.split([' ', ',', ':']).filter(|w| !w.is_empty()).map(str::to_owned).collect();
            match words[0].as_str() {
                "launch" => setup.launch = words,
                "result" => drop(setup.results.insert(words[1].clone(), values(&words[2], &words[3..]))),
                "u32" | "f32" | "buffer" | "room" | "hidden" | "hole" | "map" => setup.arguments.push(words),
                _ => {}
            }
        }
        setup
    }

    fn run(&self, text: &str, mode: Mode) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let kernel: Kernel = load(text)?.remove(0);
        let mut device = Device::new();
        let mut buffers = BTreeMap::new();
        let mut arguments = Vec::new();
        for words in &self.arguments {
            match words[0].as_str() {
                "u32" => arguments.push(Argument::U32(words[1].parse().unwrap())),
                "f32" => arguments.push(Argument::F32(words[1].parse().unwrap())),
                "map" => arguments.push(map(buffers[&words[1]], &words[2..])),
                kind => {
                    let address = match kind {
                        "buffer" | "hidden" => device.upload(&words[1], &values(&words[2], &words[3..])),
                        _ => device.allocate(&words[1], words[2].parse().unwrap()),
                    };
                    buffers.insert(words[1].clone(), address);
                    if matches!(kind, "buffer" | "room") {
                        arguments.push(Argument::U64(address));
                    }
                }
            }
        }
        device.launch(&kernel, &self.launch(mode), &arguments)?;
        let read =
            |(name, wanted): (&String, &Vec<u8>)| Ok((name.clone(), device.read(buffers[name], wanted.len() as u64)?));
        self.results.iter().map(read).collect()
    }

    fn launch(&self, mode: Mode) -> Launch {
        let number = |key: &str| {
            let at = self.launch.iter().position(|word| word == key)?;
            Some(self.launch[at + 1].parse::<u32>().unwrap())
        };
        let mut launch = Launch::new([number("grid").unwrap(), 1, 1], [number("threads").unwrap(), 1, 1]);
        launch.cluster = number("cluster").map(|blocks| [blocks, 1, 1]);
        launch.dynamic_shared = u64::from(number("shared").unwrap_or(0));
        launch.mode = mode;
        launch.budget = 100_000;
        launch
    }
}

/// The bytes of values of a type.
fn values(of: &str, words: &[String]) -> Vec<u8> {
    let mut numbers: Vec<f64> = Vec::new();
    let mut i = 0;
    while i < words.len() {
        if let Some((from, to)) = words[i].split_once("..") {
            numbers.extend((from.parse::<i64>().unwrap()..to.parse().unwrap()).map(|n| n as f64));
        } else if words.get(i + 1).is_some_and(|word| word == "mod") {
            let (count, modulus): (u32, u32) = (words[i].parse().unwrap(), words[i + 2].parse().unwrap());
            numbers.extend((0..count).map(|n| f64::from(n % modulus)));
            i += 2;
        } else if words.get(i + 1).is_some_and(|word| word == "x") {
            let value: f64 = words[i + 2].parse().unwrap();
            numbers.extend(std::iter::repeat_n(value, words[i].parse().unwrap()));
            i += 2;
        } else {
            numbers.push(words[i].parse().unwrap());
        }
        i += 1;
    }
    let bytes = |n: &f64| match of {
        "u32" => (*n as u32).to_le_bytes().to_vec(),
        "f32" => (*n as f32).to_le_bytes().to_vec(),
        "bf16" => half::bf16::from_f64(*n).to_le_bytes().to_vec(),
        "u8" => vec![*n as u8],
        other => panic!("unknown type {other}"),
    };
    numbers.iter().flat_map(bytes).collect()
}

/// A dense bf16 tensor's map, from its sizes and those of a box.
fn map(address: u64, words: &[String]) -> Argument {
    let mut parts = words.split(|word| word == "box");
    let numbers = |words: &[String]| words.iter().map(|word| word.parse().unwrap()).collect::<Vec<u64>>();
    let sizes = numbers(parts.next().unwrap());
    let box_sizes: Vec<u32> = numbers(parts.next().unwrap()).iter().map(|size| *size as u32).collect();
    let strides = (1..sizes.len()).map(|i| sizes[..i].iter().product::<u64>() * 2).collect();
    let map = TensorMap {
        element: TensorElement::Bf16,
        address,
        strides,
        element_strides: vec![1; sizes.len()],
        sizes,
        box_sizes,
        swizzle: Swizzle::Bytes128,
        fill_nan: false,
    };
    Argument::Bytes(map.encode().unwrap())
}
