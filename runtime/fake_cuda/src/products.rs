//! What cuBLASLt is told of products, and how the fake GPU computes them. Matrices lie column by column.
use crate::gpu::Gpu;
use cudarc::cublaslt::sys::cublasLtReductionScheme_t as Reduction;
use cudarc::driver::sys::CUresult;

/// Everything that the library has made, by number; none where it was given back.
#[derive(Default)]
pub struct Products {
    /// Handles that were made and not given back.
    pub handles: u32,
    pub descriptions: Vec<Option<Description>>,
    pub layouts: Vec<Option<Layout>>,
    pub preferences: Vec<Option<Preference>>,
    pub algorithms: Vec<Algorithm>,
    /// What was wrong last.
    pub said: String,
}

/// Whether the factors are transposed.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Description {
    pub first_transposed: bool,
    pub second_transposed: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Element {
    F32,
    Bf16,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Layout {
    pub element: Element,
    pub rows: u64,
    pub columns: u64,
    /// Elements from one column to the next.
    pub stride: u64,
}

/// What an algorithm keeps to; in the beginning what the library's manual says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Preference {
    pub workspace: u64,
    pub reductions: u32,
    /// Of the factors, C and D.
    pub alignments: [u32; 4],
}

/// A way to compute one kind of product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Algorithm {
    pub kind: Kind,
    pub preference: Preference,
}

/// A product but for where it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Kind {
    pub description: Description,
    pub first: Layout,
    pub second: Layout,
    /// C and D.
    pub result: Layout,
}

/// A product that a stream does: `D = alpha · first · second + beta · C`.
#[derive(Clone, Debug)]
pub struct Product {
    pub kind: Kind,
    pub alpha: f32,
    pub beta: f32,
    /// Of the factors, C and D.
    pub addresses: [u64; 4],
    pub workspace: (u64, u64),
}

impl Default for Preference {
    fn default() -> Preference {
        Preference { workspace: 0, reductions: Reduction::CUBLASLT_REDUCTION_SCHEME_MASK as u32, alignments: [256; 4] }
    }
}

impl Element {
    fn bytes(self) -> u64 {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }
}

impl Layout {
    /// Bytes from the first element to behind the last.
    fn span(&self) -> u64 {
        ((self.columns - 1) * self.stride + self.rows) * self.element.bytes()
    }

    fn transposed_if(self, transposed: bool) -> (u64, u64) {
        if transposed { (self.columns, self.rows) } else { (self.rows, self.columns) }
    }
}

impl Kind {
    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        let (first, second) = (self.first, self.second);
        let (m, k) = first.transposed_if(self.description.first_transposed);
        let (other_k, n) = second.transposed_if(self.description.second_transposed);
        let sized = |layout: &Layout| layout.rows > 0 && layout.columns > 0 && layout.stride >= layout.rows;
        let all = [first, second, self.result];
        match () {
            () if !all.iter().all(sized) => {
                Some("a layout without elements, or with columns closer than they are long".into())
            }
            () if k != other_k => Some(format!("a first factor of {m} x {k}, a second of {other_k} x {n}")),
            () if (self.result.rows, self.result.columns) != (m, n) => Some(format!("a result that is not {m} x {n}")),
            () if first.element != Element::Bf16 || second.element != Element::Bf16 => {
                Some("factors other than bf16".into())
            }
            () => None,
        }
    }

    fn steps(&self) -> u64 {
        self.first.transposed_if(self.description.first_transposed).1
    }
}

impl Algorithm {
    /// What is wrong with computing that product so; `live` says whether a range is memory of the GPU.
    pub fn fault(&self, product: &Product, live: impl Fn(u64, u64) -> bool) -> Option<String> {
        let Kind { first, second, result, .. } = product.kind;
        let spans = [first, second, result, result].map(|layout| layout.span());
        let operands: Vec<(u64, u64)> = product.addresses.into_iter().zip(spans).collect();
        let (workspace, bytes) = product.workspace;
        let apart = |a: (u64, u64), b: (u64, u64)| a.0 + a.1 <= b.0 || b.0 + b.1 <= a.0;
        let aligned = |(address, alignment): (&u64, u32)| address.is_multiple_of(alignment.into());
        let (c, d) = (operands[2], operands[3]);
        match () {
            () if product.kind != self.kind => Some("an algorithm for another product".into()),
            () if !operands.iter().all(|(address, span)| live(*address, *span)) => {
                Some("an operand outside of memory".into())
            }
            () if !product.addresses.iter().zip(self.preference.alignments).all(aligned) => {
                Some(format!("operands at {:x?}, aligned otherwise than was said", product.addresses))
            }
            () if bytes != self.preference.workspace || !live(workspace, bytes) || !workspace.is_multiple_of(16) => {
                Some(format!("a workspace of {bytes} bytes at {workspace:#x}, wanted {}", self.preference.workspace))
            }
            () if !operands.iter().all(|operand| apart(*operand, product.workspace)) => {
                Some("a workspace over an operand".into())
            }
            () if !apart(operands[0], d) || !apart(operands[1], d) => Some("a result over a factor".into()),
            () if c.0 != d.0 && !apart(c, d) => Some("a result over a part of what is added".into()),
            () => None,
        }
    }
}

impl Gpu {
    /// Computes a product, in f32 and in order; its workspace holds no number afterwards.
    pub fn multiply(&mut self, product: &Product) -> Result<(), CUresult> {
        let Product { kind, alpha, beta, addresses, workspace } = product;
        self.store(workspace.0, &vec![0xff; workspace.1 as usize])?;
        let [first, second] =
            [(addresses[0], kind.first), (addresses[1], kind.second)].map(|it| self.matrix(it.0, &it.1));
        let (first, second) = (first?, second?);
        // What is not added is not read.
        let added = if *beta == 0.0 { None } else { Some(self.matrix(addresses[2], &kind.result)?) };
        let at = |layout: &Layout, transposed: bool, row: u64, column: u64| {
            let (row, column) = if transposed { (column, row) } else { (row, column) };
            (column * layout.rows + row) as usize
        };
        for column in 0..kind.result.columns {
            let mut stored = Vec::new();
            for row in 0..kind.result.rows {
                let terms = (0..kind.steps()).map(|k| {
                    let a = first[at(&kind.first, kind.description.first_transposed, row, k)];
                    let b = second[at(&kind.second, kind.description.second_transposed, k, column)];
                    a * b
                });
                let sum = alpha * terms.fold(0f32, |sum, term| sum + term);
                let all = added.as_ref().map_or(sum, |c| sum + beta * c[at(&kind.result, false, row, column)]);
                match kind.result.element {
                    Element::F32 => stored.extend(all.to_le_bytes()),
                    Element::Bf16 => stored.extend(half::bf16::from_f32(all).to_le_bytes()),
                }
            }
            self.store(addresses[3] + column * kind.result.stride * kind.result.element.bytes(), &stored)?;
        }
        Ok(())
    }

    /// The elements of a matrix, column by column without gaps.
    fn matrix(&mut self, address: u64, layout: &Layout) -> Result<Vec<f32>, CUresult> {
        let size = layout.element.bytes();
        let mut elements = Vec::with_capacity((layout.rows * layout.columns) as usize);
        for column in 0..layout.columns {
            let found = self.machine.read(address + column * layout.stride * size, layout.rows * size);
            let bytes = found.map_err(|error| self.fail(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, error.to_string()))?;
            match layout.element {
                Element::F32 => {
                    elements.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
                }
                Element::Bf16 => {
                    let wide = |b: &[u8]| half::bf16::from_le_bytes([b[0], b[1]]).to_f32();
                    elements.extend(bytes.chunks_exact(2).map(wide));
                }
            }
        }
        Ok(elements)
    }
}
