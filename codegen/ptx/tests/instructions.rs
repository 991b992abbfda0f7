//! `instructions.txt`: an instruction on constants and its result a line, all in one kernel.
use amc_ptx::{Argument, Device, Launch, load};
use half::{bf16, f16};
use std::fmt::Write;

struct Row<'t> {
    line: usize,
    text: &'t str,
    instruction: String,
    class: char,
    wanted: u64,
}

#[test]
fn instructions_give_their_results() {
    let table = include_str!("instructions.txt");
    let lines = table.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let rows: Vec<Row> = lines.map(|(i, text)| row(i + 1, text)).collect();
    let kernel = load(&kernel(&rows)).unwrap_or_else(|error| panic!("{error}")).remove(0);
    let mut device = Device::new();
    let out = device.allocate("out", 8 * rows.len() as u64);
    device.launch(&kernel, &Launch::new([1, 1, 1], [1, 1, 1]), &[Argument::U64(out)]).unwrap();
    let bytes = device.read(out, 8 * rows.len() as u64).unwrap();
    let mut wrong = Vec::new();
    for (row, bytes) in rows.iter().zip(bytes.chunks_exact(8)) {
        let found = u64::from_le_bytes(bytes.try_into().unwrap());
        if found != row.wanted {
            wrong.push(format!("line {}: {}: found {found:#x}, wanted {:#x}", row.line, row.text, row.wanted));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} instructions", rows.len());
}

fn row(line: usize, text: &str) -> Row<'_> {
    let (instruction, wanted) = text.split_once(" = ").unwrap_or_else(|| panic!("line {line}: no result"));
    let (opcode, operands) = instruction.split_once(' ').unwrap();
    let mut operands = operands.split(", ");
    let class = operands.next().unwrap().chars().next().unwrap();
    let sources = operands.map(|operand| match operand {
        "true" => "%p1".to_owned(),
        "false" => "%p2".to_owned(),
        number => constant(number),
    });
    let sources = sources.collect::<Vec<_>>().join(", ");
    let mask = match class {
        'h' => 0xffff,
        'w' => 0xffff_ffff,
        'd' => u64::MAX,
        'p' => 1,
        other => panic!("line {line}: destination {other}"),
    };
    Row { line, text, instruction: format!("{opcode} %{class}0, {sources};"), class, wanted: bits(wanted) & mask }
}

fn kernel(rows: &[Row]) -> String {
    let mut text = String::from(
        ".version 8.3\n.target sm_90a\n.address_size 64\n.visible .entry all(.param .u64 out) {\n\
         .reg .pred %p<3>;\n.reg .b16 %h<1>;\n.reg .b32 %w<1>;\n.reg .b64 %d<2>;\n\
         setp.eq.s32 %p1, 0, 0;\nsetp.ne.s32 %p2, 0, 0;\nld.param.b64 %d1, [out];\n",
    );
    for (i, row) in rows.iter().enumerate() {
        let widen = match row.class {
            'h' => "cvt.u64.u16 %d0, %h0;",
            'w' => "cvt.u64.u32 %d0, %w0;",
            'p' => "selp.b64 %d0, 1, 0, %p0;",
            _ => "",
        };
        writeln!(text, "{} {widen} st.global.b64 [%d1+{}], %d0;", row.instruction, 8 * i).unwrap();
    }
    text.push_str("ret;\n}\n");
    text
}

/// A number as PTX writes it.
fn constant(number: &str) -> String {
    match number.chars().last() {
        Some('f') if !number.starts_with("0x") => format!("0f{:08X}", bits(number)),
        Some('l') => format!("0d{:016X}", bits(number)),
        _ => format!("{}", bits(number) as i64),
    }
}

fn bits(number: &str) -> u64 {
    if let Some((high, low)) = number.split_once('|') {
        return bits(high) << 16 | bits(low);
    }
    if let Some(hex) = number.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).unwrap();
    }
    let (digits, kind) = number.split_at(number.len() - 1);
    match kind {
        "f" if digits == "nan" => 0x7fc0_0000,
        "f" => u64::from(digits.parse::<f32>().unwrap().to_bits()),
        "l" => digits.parse::<f64>().unwrap().to_bits(),
        "b" => u64::from(bf16::from_f64(digits.parse().unwrap()).to_bits()),
        "e" => u64::from(f16::from_f64(digits.parse().unwrap()).to_bits()),
        _ => number.parse::<i128>().unwrap_or_else(|_| panic!("number {number}")) as u64,
    }
}
