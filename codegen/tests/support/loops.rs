//! The innermost loops of a kernel's assembly, and what their instructions do.
use std::fmt::Write;

/// A loop without another inside.
pub struct Loop {
    pub function: String,
    /// Which of the function's innermost loops it is, from 1 on.
    pub number: usize,
    /// Its instructions, without directives and comments.
    pub text: Vec<String>,
    /// Whether `rbp` points into the stack.
    framed: bool,
}

/// Instructions of a loop by what they do. One that multiplies and adds a value from memory
/// counts twice.
#[derive(Default)]
pub struct Counts {
    /// `vfmadd…` and the like.
    pub fma: usize,
    /// `vdpbf16ps`, two multiply-adds a lane.
    pub dot: usize,
    /// Instructions that read memory otherwise than by a broadcast.
    pub loads: usize,
    /// Scalars from memory to all lanes.
    pub broadcasts: usize,
    pub stores: usize,
    /// Instructions that read or write the stack.
    pub stack: usize,
    /// Everything else.
    pub other: usize,
}

/// The innermost loops of `assembly` (AT&T syntax) in order: from a label to a jump back to it, with no such pair
/// inside.
pub fn innermost(assembly: &str) -> Vec<Loop> {
    functions(assembly).into_iter().flat_map(|(name, lines)| loops_of(&name, &lines)).collect()
}

/// Names and lines of functions: instructions and local labels.
fn functions(assembly: &str) -> Vec<(String, Vec<String>)> {
    let mut functions: Vec<(String, Vec<String>)> = vec![];
    for line in assembly.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match line.strip_suffix(':') {
            Some(label) if !label.starts_with('.') => functions.push((label.into(), vec![])),
            None if line.is_empty() || line.starts_with('.') => {}
            _ => functions.last_mut().into_iter().for_each(|(_, lines)| lines.push(line.into())),
        }
    }
    functions
}

fn loops_of(function: &str, lines: &[String]) -> Vec<Loop> {
    let label = |at: usize| lines[at].strip_suffix(':');
    let back = |(at, line): (usize, &String)| {
        let target = line.strip_prefix('j')?.split_whitespace().nth(1)?;
        (0..at).find(|i| label(*i) == Some(target)).map(|start| (start, at))
    };
    let mut ranges: Vec<(usize, usize)> = lines.iter().enumerate().filter_map(back).collect();
    // Several jumps to one label are one loop, to the last of them.
    ranges.sort_unstable_by_key(|&(start, end)| (start, std::cmp::Reverse(end)));
    ranges.dedup_by_key(|range| range.0);
    let framed = lines.iter().any(|line| line.split_whitespace().eq(["movq", "%rsp,", "%rbp"]));
    let inside = |a: (usize, usize), b: (usize, usize)| a != b && b.0 <= a.0 && a.1 <= b.1;
    let innermost = ranges.iter().filter(|&&range| !ranges.iter().any(|&other| inside(other, range)));
    let text = |&(start, end): &(usize, usize)| {
        (start..=end).filter(|i| label(*i).is_none()).map(|i| lines[i].clone()).collect()
    };
    innermost
        .enumerate()
        .map(|(i, range)| Loop { function: function.into(), number: i + 1, text: text(range), framed })
        .collect()
}

impl Loop {
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for line in &self.text {
            self.count(line, &mut counts);
        }
        counts
    }

    fn count(&self, line: &str, counts: &mut Counts) {
        let (mnemonic, operands) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let fma = ["vfmadd", "vfmsub", "vfnmadd", "vfnmsub"].iter().any(|m| mnemonic.starts_with(m));
        let dot = mnemonic == "vdpbf16ps";
        let memory = operands.contains('(') && !mnemonic.starts_with("lea") && !mnemonic.starts_with("prefetch");
        let stack = memory && (operands.contains("(%rsp") || self.framed && operands.contains("(%rbp"));
        counts.fma += usize::from(fma);
        counts.dot += usize::from(dot);
        // AT&T syntax has the destination last, if there is one.
        let stores = operands.ends_with(')') && !mnemonic.starts_with("cmp") && !mnemonic.starts_with("test");
        match () {
            () if stack => counts.stack += 1,
            () if memory && stores => counts.stores += 1,
            () if memory && (mnemonic.contains("broadcast") || operands.contains("{1to")) => counts.broadcasts += 1,
            () if memory => counts.loads += 1,
            () if !fma && !dot => counts.other += 1,
            () => {}
        }
    }

    /// The loop as a region that llvm-mca takes.
    pub fn marked(&self, kernel: &str) -> String {
        let mut text = format!("# LLVM-MCA-BEGIN {kernel}: {} {}\n", self.function, self.number);
        for line in &self.text {
            writeln!(text, "{line}").expect("writing to a string");
        }
        text + "# LLVM-MCA-END\n"
    }
}
